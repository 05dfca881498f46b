//! Where wishes come from besides the file and the control socket: each source only reports what it found.

pub mod etcd;

//! vswitchd's rooms.

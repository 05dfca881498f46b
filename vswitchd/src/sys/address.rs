//! Socket addresses in the kernel's form. No sockets here.

use super::len_of;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// An Internet socket address as the kernel reads and writes it; encoded once, used for every datagram.
#[derive(Clone, Copy)]
#[repr(C)]
pub union SocketName {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

#[expect(clippy::cast_possible_truncation, reason = "AF_INET is 2 and AF_INET6 is 10")]
const fn family(family: libc::c_int) -> libc::sa_family_t {
    family.unsigned_abs() as libc::sa_family_t
}

impl SocketName {
    /// No address: to be filled by the kernel.
    pub(super) const EMPTY: Self = Self {
        v6: libc::sockaddr_in6 {
            sin6_family: 0,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        },
    };

    /// How many bytes the kernel is to read.
    pub(super) const fn len(&self) -> libc::socklen_t {
        if self.is_v4() { len_of::<libc::sockaddr_in>() } else { len_of::<libc::sockaddr_in6>() }
    }

    const fn is_v4(&self) -> bool {
        // SAFETY: every variant begins with the family (all are `repr(C)`), and EMPTY and `from` write all of
        // the largest variant, so these two bytes are initialised.
        unsafe { self.family == family(libc::AF_INET) }
    }

    const fn is_v6(&self) -> bool {
        // SAFETY: as in `is_v4`.
        unsafe { self.family == family(libc::AF_INET6) }
    }

    /// The address; `None` when it is of neither Internet family.
    #[must_use]
    pub const fn get(&self) -> Option<SocketAddr> {
        if self.is_v4() {
            // SAFETY: the family says so; EMPTY initialised all the bytes, and any bytes are a sockaddr_in.
            let v4 = unsafe { self.v4 };
            let address = Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::V4(SocketAddrV4::new(address, u16::from_be(v4.sin_port))))
        } else if self.is_v6() {
            // SAFETY: the family says so; EMPTY initialised all the bytes, and any bytes are a sockaddr_in6.
            let v6 = unsafe { self.v6 };
            let address = Ipv6Addr::from_octets(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddr::V6(SocketAddrV6::new(address, port, v6.sin6_flowinfo, v6.sin6_scope_id)))
        } else {
            None
        }
    }
}

impl From<SocketAddr> for SocketName {
    fn from(address: SocketAddr) -> Self {
        let mut name = Self::EMPTY;
        match address {
            SocketAddr::V4(v4) => {
                name.v4 = libc::sockaddr_in {
                    sin_family: family(libc::AF_INET),
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: v4.ip().to_bits().to_be() },
                    sin_zero: [0; 8],
                };
            }
            SocketAddr::V6(v6) => {
                name.v6 = libc::sockaddr_in6 {
                    sin6_family: family(libc::AF_INET6),
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
            }
        }
        name
    }
}

impl std::fmt::Debug for SocketName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.get(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_kernel_form() {
        for text in ["192.0.2.1:4789", "[2001:db8::1]:4789", "[fe80::1%3]:65535", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketName::from(address).get(), Some(address));
        }
        assert_eq!(SocketName::EMPTY.get(), None);
    }
}

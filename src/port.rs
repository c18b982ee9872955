//! A port that is reserved first and opened later.
//!
//! In: an address. Out: a listener. A port that is in use is an error at the start, before anything else is done.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use rustix::{io::Errno, net::sockopt::set_ipv6_v6only};
use tokio::net::{TcpListener, TcpSocket};

/// Connections that the system completes before they are accepted. When there are more, it drops them silently, those of the
/// API server among them.
const BACKLOG: u32 = 1024;

/// A reserved port. The system refuses connections to it until [`Port::open`].
#[derive(Debug)]
pub struct Port(TcpSocket);

impl Port {
    /// Reserves the port. The unspecified IPv6 address (`[::]`) includes IPv4, and means IPv4 only on a machine without
    /// IPv6. Must be called in a runtime.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        bind_with(address, socket).map(Self)
    }

    /// Returns its address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Opens the port: from now on, the system accepts connections.
    pub fn open(self) -> io::Result<TcpListener> {
        self.0.listen(BACKLOG)
    }
}

fn bind_with<T>(address: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    bind(address).or_else(|error| match without_ipv6(address, &error) {
        Some(ipv4) => bind(ipv4),
        None => Err(error),
    })
}

/// Returns the IPv4 address to use instead, if the error says that the machine has no IPv6.
fn without_ipv6(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let lacks = matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL));
    let is_any = address.is_ipv6() && address.ip().is_unspecified();
    (lacks && is_any).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    // Connections of a process that has just ended may remain.
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        // An administrator can change the system's default (net.ipv6.bindv6only).
        set_ipv6_v6only(&socket, false)?;
    }
    socket.bind(address)?;
    Ok(socket)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{cell::Cell, net::TcpListener as StdListener};

    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_address_of_the_machine_is_served_whichever_it_has() {
        let port = Port::bind("[::]:0".parse().unwrap()).unwrap();
        let at = port.address().unwrap().port();
        let _listener = port.open().unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, at)).await.unwrap();
        if StdListener::bind("[::1]:0").is_ok() {
            TcpStream::connect(("::1", at)).await.unwrap();
        }
    }

    #[test]
    fn without_ipv6_every_address_is_every_ipv4_address() {
        let tried = |address: &str, errno: Errno| {
            let tries = Cell::new(0);
            let bound = bind_with(address.parse().unwrap(), |address| {
                tries.set(tries.get() + 1);
                if address.is_ipv4() { Ok(address.to_string()) } else { Err(errno.into()) }
            });
            (bound.ok(), tries.get())
        };
        for errno in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            assert_eq!(tried("[::]:8443", errno), (Some("0.0.0.0:8443".to_owned()), 2));
            assert_eq!(tried("[::1]:8443", errno), (None, 1), "an address that was asked for");
        }
        assert_eq!(tried("[::]:8443", Errno::ADDRINUSE), (None, 1));
        assert_eq!(tried("0.0.0.0:8443", Errno::ADDRINUSE), (Some("0.0.0.0:8443".to_owned()), 1));
    }
}

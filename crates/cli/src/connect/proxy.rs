//! Which proxy a request goes through: as Go's `golang.org/x/net/http/httpproxy` decides it, which is what kubectl uses.
//!
//! kube reads these variables, too, but compares `NO_PROXY` with the proxy's address instead of the
//! server's, treats an entry that it cannot parse as an error, and does not match a domain's subdomains.
//!
//! Go does not know `ALL_PROXY`. It counts if no variable of the server's scheme is set.

use std::{env, net::IpAddr};

use http::Uri;
use ipnet::IpNet;

use super::login::{Login, LoginError};

/// The scheme of SOCKS5 proxies in what [`parse`] returns.
pub(super) const SOCKS5: &str = "socks5";
/// The longest user and the longest password that SOCKS5 can carry, in bytes (RFC 1929).
const SOCKS_LOGIN_MAX: usize = 255;

/// What the environment says of proxies.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    https: String,
    http: String,
    all: String,
    no: String,
    /// Whether this is a CGI program: there, a client chooses the variable `HTTP_PROXY` by a header `Proxy`.
    is_cgi: bool,
}

/// A proxy's URL that cannot be used. It may hold a password: it is not repeated.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProxyError {
    /// It cannot be parsed.
    #[error("it is not a URL")]
    NotAUrl,
    /// It has a scheme that is not supported.
    #[error("its scheme must be http, https or socks5")]
    Scheme,
    /// Its user or password cannot be read.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// SOCKS5 cannot carry the user or the password.
    #[error("SOCKS5 needs a user and a password of 1 to {SOCKS_LOGIN_MAX} bytes each; correct them, or remove both")]
    SocksLogin,
}

impl Environment {
    /// The process's variables. Upper case goes first; an empty value is an absent one.
    pub(super) fn read() -> Self {
        let any = |names: [&str; 2]| {
            let mut values = names.into_iter().filter_map(|name| env::var(name).ok());
            values.find(|value| !value.is_empty()).unwrap_or_default()
        };
        Self {
            https: any(["HTTPS_PROXY", "https_proxy"]),
            http: any(["HTTP_PROXY", "http_proxy"]),
            all: any(["ALL_PROXY", "all_proxy"]),
            no: any(["NO_PROXY", "no_proxy"]),
            is_cgi: env::var_os("REQUEST_METHOD").is_some_and(|method| !method.is_empty()),
        }
    }

    /// The proxy for requests to this server. The error names the variable.
    pub(super) fn proxy_for(&self, server: &Uri) -> Result<Option<Uri>, (&'static str, ProxyError)> {
        let (own, own_name) = match server.scheme_str() {
            Some("https") => (&self.https, "HTTPS_PROXY"),
            _ if self.is_cgi => (&self.all, "ALL_PROXY"),
            _ => (&self.http, "HTTP_PROXY"),
        };
        let (value, name) = if own.is_empty() { (&self.all, "ALL_PROXY") } else { (own, own_name) };
        if value.is_empty() || !self.is_wanted(server) {
            return Ok(None);
        }
        // Without a scheme it is an HTTP proxy.
        let url = if value.contains("://") { value.clone() } else { format!("http://{value}") };
        parse(&url).map(Some).map_err(|error| (name, error))
    }

    /// Whether no exception holds for the server.
    fn is_wanted(&self, server: &Uri) -> bool {
        let host = server.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = server.port_u16().unwrap_or(if server.scheme_str() == Some("https") { 443 } else { 80 });
        let address: Option<IpAddr> = host.parse().ok();
        if host == "localhost" || address.is_some_and(|address| address.to_canonical().is_loopback()) {
            return false;
        }
        !self.no.split(',').filter_map(Exception::parse).any(|exception| exception.holds_for(&host, address, port))
    }
}

/// An entry of `NO_PROXY`.
#[derive(Debug)]
enum Exception {
    All,
    Network(IpNet),
    Address(IpAddr, Option<u16>),
    /// `.example.com`: the subdomains, and the domain itself if `with_itself`.
    Domain {
        suffix: String,
        with_itself: bool,
        port: Option<u16>,
    },
}

impl Exception {
    /// `None` for an empty entry, which Go ignores, too.
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_lowercase();
        if entry == "*" {
            return Some(Self::All);
        }
        if let Ok(network) = entry.parse() {
            return Some(Self::Network(network));
        }
        let (host, port) = split_port(&entry).unwrap_or((&entry, ""));
        // A port that is no number matches no server.
        let port = if port.is_empty() { None } else { Some(port.parse().unwrap_or(0)) };
        if let Ok(address) = host.parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical(), port));
        }
        if host.is_empty() {
            return None;
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        let with_itself = !host.starts_with('.');
        let suffix = if with_itself { format!(".{host}") } else { host.to_owned() };
        Some(Self::Domain { suffix, with_itself, port })
    }

    fn holds_for(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        let fits = |wanted: Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        match self {
            Self::All => true,
            Self::Network(network) => address.is_some_and(|address| network.contains(&address.to_canonical())),
            Self::Address(own, wanted) => {
                address.is_some_and(|address| address.to_canonical() == *own) && fits(*wanted)
            }
            Self::Domain { suffix, with_itself, port: wanted } => {
                let is_it = *with_itself && host == &suffix[1..];
                address.is_none() && (host.ends_with(suffix.as_str()) || is_it) && fits(*wanted)
            }
        }
    }
}

/// Go's `net.SplitHostPort`: `host:port` or `[host]:port`, and nothing if there is no port.
fn split_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    if let Some(bracketed) = host.strip_prefix('[') {
        return Some((bracketed.strip_suffix(']')?, port));
    }
    (!host.contains([':', '[', ']']) && !port.contains(']')).then_some((host, port))
}

/// A proxy's URL as the client takes it: with a port, and with a colon if it has a user.
pub(super) fn parse(url: &str) -> Result<Uri, ProxyError> {
    let uri: Uri = url.parse().map_err(|_| ProxyError::NotAUrl)?;
    let (Some(authority), Some(scheme)) = (uri.authority(), uri.scheme_str()) else { return Err(ProxyError::NotAUrl) };
    if authority.host().is_empty() {
        return Err(ProxyError::NotAUrl);
    }
    let (scheme, default_port) = match scheme {
        "http" => ("http", 80),
        "https" => ("https", 443),
        // Names are resolved by the proxy in either case, by Go as by hyper.
        "socks5" | "socks5h" => (SOCKS5, 1080),
        _ => return Err(ProxyError::Scheme),
    };
    let login = Login::of(&uri)?;
    let fits = |text: &str| (1..=SOCKS_LOGIN_MAX).contains(&text.len());
    if scheme == SOCKS5 && login.is_some_and(|login| !fits(&login.user) || !fits(&login.password)) {
        return Err(ProxyError::SocksLogin);
    }
    let port = if authority.port().is_some() { String::new() } else { format!(":{default_port}") };
    let (user, host) = match authority.as_str().rsplit_once('@') {
        // Basic authentication has a colon in any case (RFC 7617), and kube adds none. A second @ would end its login.
        Some((user, host)) => {
            let colon = if user.contains(':') { "" } else { ":" };
            (format!("{}{colon}@", user.replace('@', "%40")), host)
        }
        None => (String::new(), authority.as_str()),
    };
    let host = host.trim_end_matches(':');
    format!("{scheme}://{user}{host}{port}").parse().map_err(|_| ProxyError::NotAUrl)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn through(environment: &Environment, server: &str) -> Option<String> {
        environment.proxy_for(&server.parse().unwrap()).unwrap().map(|proxy| proxy.to_string())
    }

    /// Rows of `httpproxy`'s own tests, and of its documentation.
    #[test]
    fn exceptions_are_those_of_go() {
        for (no, server, is_direct) in [
            ("", "https://example.com", false),
            ("*", "https://example.com", true),
            (" , * ,x", "https://example.com", true),
            ("example.com", "https://example.com", true),
            ("example.com", "https://EXAMPLE.com:6443", true),
            ("EXAMPLE.com", "https://a.example.com", true),
            ("example.com", "https://badexample.com", false),
            (".example.com", "https://a.example.com", true),
            (".example.com", "https://example.com", false),
            ("*.example.com", "https://a.b.example.com", true),
            ("*.example.com", "https://example.com", false),
            ("example.com:443", "https://example.com", true),
            ("example.com:443", "https://example.com:6443", false),
            ("example.com:6443", "https://a.example.com:6443", true),
            ("example.com:", "https://example.com:6443", true),
            ("example.com:x", "https://example.com:6443", false),
            ("10.0.0.1", "https://10.0.0.1:6443", true),
            ("10.0.0.1:6443", "https://10.0.0.1:6443", true),
            ("10.0.0.1:443", "https://10.0.0.1:6443", false),
            ("10.0.0.1", "https://10.0.0.11", false),
            ("10.0.0.0/8", "https://10.1.2.3", true),
            ("10.9.9.9/8", "https://10.1.2.3", true),
            ("10.0.0.0/8", "https://11.1.2.3", false),
            ("10.0.0.0/8", "https://10.example.com", false),
            ("10.0.0.0/8", "https://[::ffff:10.1.2.3]", true),
            ("fd00::/8", "https://[fd12::1]:6443", true),
            ("fd12::1", "https://[fd12::1]:6443", true),
            ("[fd12::1]:6443", "https://[fd12::1]:6443", true),
            ("[fd12::1]:443", "https://[fd12::1]:6443", false),
            ("[fd12::1]", "https://[fd12::1]:6443", false),
            (".0.0.1", "https://10.0.0.1", false),
            (":80", "https://example.com", false),
            ("x,,example.com", "https://example.com", true),
            ("x example.com", "https://example.com", false),
            ("", "https://localhost:6443", true),
            ("", "https://127.0.0.9:6443", true),
            ("", "https://[::1]:6443", true),
            ("", "https://localhost.example.com", false),
        ] {
            let environment =
                Environment { https: "http://proxy:3128".to_owned(), no: no.to_owned(), ..Environment::default() };
            assert_eq!(through(&environment, server).is_none(), is_direct, "NO_PROXY={no:?} {server}");
        }
    }

    #[test]
    fn the_variable_is_that_of_the_servers_scheme_and_then_all_proxy() {
        let mut environment = Environment {
            https: "secure:1".to_owned(),
            http: "plain:2".to_owned(),
            all: "socks5h://all".to_owned(),
            ..Environment::default()
        };
        assert_eq!(through(&environment, "https://a").unwrap(), "http://secure:1/");
        assert_eq!(through(&environment, "http://a").unwrap(), "http://plain:2/");
        environment.is_cgi = true;
        assert_eq!(through(&environment, "http://a").unwrap(), "socks5://all:1080/");
        environment.https.clear();
        assert_eq!(through(&environment, "https://a").unwrap(), "socks5://all:1080/");
        environment.all.clear();
        assert_eq!(through(&environment, "https://a"), None);
    }

    #[test]
    fn a_proxys_url_gets_a_port_and_only_known_schemes() {
        let long = "u".repeat(SOCKS_LOGIN_MAX + 1);
        for (url, expected) in [
            ("http://proxy", Ok("http://proxy:80/")),
            ("https://proxy/", Ok("https://proxy:443/")),
            ("socks5://[::1]", Ok("socks5://[::1]:1080/")),
            ("http://me:pw%40@proxy:8080", Ok("http://me:pw%40@proxy:8080/")),
            ("http://me@proxy", Ok("http://me:@proxy:80/")),
            ("http://me@home:p@w@proxy", Ok("http://me%40home:p%40w@proxy:80/")),
            ("http://me:%zz@proxy", Err(ProxyError::Login(LoginError))),
            ("socks5://me:pw@proxy", Ok("socks5://me:pw@proxy:1080/")),
            ("socks5://me@proxy", Err(ProxyError::SocksLogin)),
            ("socks5://:pw@proxy", Err(ProxyError::SocksLogin)),
            (&format!("socks5://{long}:pw@proxy"), Err(ProxyError::SocksLogin)),
            ("ftp://proxy", Err(ProxyError::Scheme)),
            ("proxy:3128", Err(ProxyError::NotAUrl)),
            ("http://", Err(ProxyError::NotAUrl)),
            ("http://a b", Err(ProxyError::NotAUrl)),
        ] {
            let parsed = parse(url).map(|url| url.to_string());
            assert_eq!(parsed.as_deref(), expected.as_deref(), "{url}");
        }
    }
}

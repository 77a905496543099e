//! HTTP's socket where systemd holds it for us (`systemd/stube.socket`), so that a restart refuses no connection.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

use crate::config::ConfigError;

/// What the socket is called: `FileDescriptorName=` of the socket unit.
const HTTP: &str = "http";

/// The listener for HTTP, if systemd passed one. It must listen where `http.listen` says, because what the
/// configuration was checked for, such as that the shipped key stays on loopback, was checked for that address.
pub fn http_listener(configured: SocketAddr) -> Result<Option<TcpListener>, ConfigError> {
    let wrong = |key: &str, problem: String| ConfigError::Key { key: key.to_owned(), problem };
    let of_socket = |problem: String| wrong("stube-http.socket", problem);
    let passed = sd_notify::listen_fds_with_names().map_err(|error| of_socket(error.to_string()))?;
    let names: Vec<String> = passed.map(|(_, name)| name).collect();
    if !is_passed(&names).map_err(|problem| of_socket(problem.to_owned()))? {
        return Ok(None);
    }
    let listener = ListenFd::from_env().take_tcp_listener(0).map_err(|error| of_socket(error.to_string()))?;
    let Some(listener) = listener else { return Ok(None) };
    if !socket2::SockRef::from(&listener).is_listener().unwrap_or(false) {
        return Err(of_socket("expected a socket that listens: Accept=no".to_owned()));
    }
    let address = listener.local_addr().map_err(|error| of_socket(error.to_string()))?;
    if address != configured {
        return Err(wrong("http.listen", format!("{configured} is not where stube-http.socket listens: {address}")));
    }
    // tokio wants it so.
    listener.set_nonblocking(true).map_err(|error| of_socket(error.to_string()))?;
    Ok(Some(listener))
}

/// Whether there is a socket for HTTP. Any other would take connections that nobody ever answers.
fn is_passed(names: &[String]) -> Result<bool, &'static str> {
    match names {
        [] => Ok(false),
        [name] if name == HTTP => Ok(true),
        _ => Err("expected one socket, with FileDescriptorName=http"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_socket_for_http_is_taken() {
        let names = |names: &[&str]| is_passed(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(names(&[]), Ok(false));
        assert_eq!(names(&["http"]), Ok(true));
        for wrong in [&["unknown"][..], &["http", "http"], &["http", "media"], &[""]] {
            assert!(names(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn nothing_is_taken_where_nothing_was_passed() {
        let listener = http_listener(SocketAddr::from(([127, 0, 0, 1], 7880))).expect("nothing is wrong");
        assert!(listener.is_none());
    }
}

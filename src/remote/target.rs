//! A server for a client whose connections are its own, as `stube load` is: where it is, and who asks.

use reqwest::Url;

use super::Access;
use super::server::{self, Credentials, Failure, SECRET_VARIABLE};
use crate::config::{Config, ConfigError};

/// See the module. It has no `Debug`, for it holds a secret.
pub struct Target {
    pub url: Url,
    pub key: String,
    pub secret: String,
    /// Where the secret is from.
    pub source: &'static str,
}

impl Target {
    /// The server at this URL, else the configuration's, asked as this API key, else as the configuration's first. Unlike
    /// other commands it may send a secret in clear to another machine, but none that stands in the configuration.
    pub fn find(
        url: Option<String>,
        key: Option<String>,
        config: Result<Config, ConfigError>,
    ) -> Result<Self, Failure> {
        let access = Access { url, key, json: false };
        let own = config.as_ref().ok();
        let url = match (&access.url, own) {
            (Some(url), _) => server::base("--url", url)?,
            (None, Some(config)) => server::own_public(config)?.0,
            (None, None) => return Err(config.err().map_or_else(server::no_server, Failure::from)),
        };
        let in_clear = own.is_some_and(|config| leaves_in_clear(&url, config));
        let Credentials { key, secret, source } = server::credentials(&access, &url, config)?;
        if in_clear && source != SECRET_VARIABLE {
            return Err(Failure::Usage(
                "--url: the configuration's secret would go there in clear; give --key, and its secret in STUBE_SECRET, if \
                 it may"
                    .to_owned(),
            ));
        }
        Ok(Self { url, key, secret, source })
    }
}

/// Whether others may read what goes to a URL, as far as its host tells.
fn leaves_in_clear(url: &Url, config: &Config) -> bool {
    let stays = |host| server::is_loopback(host) || server::ip(host) == Some(config.http.listen.ip());
    url.scheme() == "http" && !url.host_str().is_some_and(stays)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SHIPPED;

    const OWN: &str = "[keys]\none = \"a-secret-of-thirty-two-bytes-at-least-1\"\n\
                       two = \"a-secret-of-thirty-two-bytes-at-least-2\"\n\
                       [http]\nlisten = \"192.0.2.7:7990\"\npublic_url = \"https://sfu.example.org\"";

    /// Where, as whom and with what, or the exit status.
    fn find(url: Option<&str>, key: Option<&str>, text: &str) -> Result<[String; 3], u8> {
        let config = Config::parse(text, std::iter::empty());
        let found = Target::find(url.map(str::to_owned), key.map(str::to_owned), config);
        found.map(|target| [target.url.to_string(), target.key, target.secret]).map_err(|failure| failure.exit_status())
    }

    fn found(url: &str, key: &str, secret: &str) -> Result<[String; 3], u8> {
        Ok([url, key, secret].map(str::to_owned))
    }

    #[test]
    fn server_and_key_are_the_configurations() {
        let (here, one, two) = (
            "http://192.0.2.7:7990/",
            "a-secret-of-thirty-two-bytes-at-least-1",
            "a-secret-of-thirty-two-bytes-at-least-2",
        );
        assert_eq!(find(None, None, OWN), found(here, "one", one));
        assert_eq!(find(None, Some("two"), OWN), found(here, "two", two));
        assert_eq!(find(Some(here), None, OWN), found(here, "one", one));
        assert_eq!(find(Some("http://127.0.0.1:80"), Some("two"), OWN), found("http://127.0.0.1/", "two", two));
        assert_eq!(find(None, Some("three"), OWN), Err(78));
        let shipped = ("http://127.0.0.1:7880/", "devkey", "devsecret-devsecret-devsecret-dev");
        assert_eq!(find(None, None, SHIPPED), found(shipped.0, shipped.1, shipped.2));
        assert_eq!(find(None, None, "not a configuration"), Err(78));
        assert_eq!(find(Some(here), None, "not a configuration"), Err(78));
    }

    #[test]
    fn no_configured_secret_goes_to_others() {
        for url in ["http://192.0.2.8:7990", "http://example.org", "http://sfu.example.org", "sfu.example.org", ""] {
            assert_eq!(find(Some(url), Some("one"), OWN), Err(2), "{url}");
        }
        assert_eq!(find(Some("http://192.0.2.7:7880"), None, SHIPPED), Err(2));
    }
}

//! Which of the configuration may change while the server runs.

use super::Config;

/// A running server's configuration after its file was read anew.
pub struct Reloaded {
    /// What holds from now on.
    pub config: Config,
    /// The keys and sections that are other than before.
    pub changed: Vec<&'static str>,
    /// Those that differ in the file and wait for a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Config {
    /// Takes over from `file` what may change live; the rest stays as it is, and is named.
    pub fn reloaded(&self, file: Self) -> Reloaded {
        let mut config = file;
        let mut needs_restart = Vec::new();
        macro_rules! fixed {
            ($($field:ident).+, $name:literal) => {
                if config.$($field).+ != self.$($field).+ {
                    needs_restart.push($name);
                    config.$($field).+ = self.$($field).+.clone();
                }
            };
        }
        fixed!(http.listen, "http.listen");
        fixed!(http.cors_origins, "http.cors_origins");
        fixed!(admin, "admin");
        fixed!(media, "media");
        fixed!(shard, "shard");
        fixed!(ledger, "ledger");
        // A listener is one or the other from its start on. Which certificate it has may change.
        if config.http.tls.is_on() != self.http.tls.is_on() {
            needs_restart.push("http.tls");
            config.http.tls = self.http.tls.clone();
        }
        // Records of one day would have addresses in two forms, of which only one is told of.
        fixed!(privacy.ip_mode, "privacy.ip_mode");
        fixed!(log.format, "log.format");
        fixed!(traces, "traces");
        let sections = [
            ("keys", config.keys != self.keys),
            ("http", config.http != self.http),
            ("ice_server", config.ice_server != self.ice_server),
            ("rooms", config.rooms != self.rooms),
            ("privacy", config.privacy != self.privacy),
            ("quota", config.quota != self.quota),
            ("webhook", config.webhook != self.webhook),
            ("shutdown", config.shutdown != self.shutdown),
            ("log", config.log != self.log),
        ];
        let changed = sections.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect();
        Reloaded { config, changed, needs_restart }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse(text, std::iter::empty()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_shipped_key_does_not_come_to_a_public_listener_by_a_reload() {
        let public = parse("[http]\nlisten = \"0.0.0.0:7880\"");
        assert!(public.check().is_ok());
        let reloaded = public.reloaded(parse(crate::config::SHIPPED));
        assert_eq!(reloaded.needs_restart, ["http.listen"]);
        assert!(reloaded.config.check().is_err_and(|error| error.to_string().contains("keys.devkey")));
    }

    #[test]
    fn a_listener_with_tls_takes_another_certificate() {
        let old = parse("[http.tls]\ndomains = [\"a.example.org\"]");
        let reloaded = old.reloaded(parse("[http.tls]\ncertificate = \"a.pem\"\nkey = \"b.pem\""));
        assert_eq!((reloaded.changed, reloaded.needs_restart), (vec!["http"], vec![]));
        assert!(reloaded.config.http.tls.has_files());
        let reloaded = old.reloaded(parse(""));
        assert_eq!((reloaded.changed, reloaded.needs_restart), (vec![], vec!["http.tls"]));
        assert!(reloaded.config.http.tls.is_on());
    }

    #[test]
    fn what_may_change_does_and_the_rest_is_named() {
        let secret = "0123456789abcdef0123456789abcdef";
        let old = parse("");
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("", &[], &[]),
            ("[keys]\na = \"SECRET\"", &["keys"], &[]),
            ("[http]\ntrusted_proxies = [\"10.0.0.0/8\"]", &["http"], &[]),
            ("[http]\nlisten = \"127.0.0.1:1\"\npublic_url = \"https://a\"", &["http"], &["http.listen"]),
            ("[http.tls]\ndomains = [\"sfu.example.org\"]", &[], &["http.tls"]),
            ("[rooms]\nmax_participants = 3", &["rooms"], &[]),
            ("[[ice_server]]\nurls = [\"stun:a\"]", &["ice_server"], &[]),
            ("[quota.default]\nmax_rooms = 3", &["quota"], &[]),
            ("[log]\nlevel = \"debug\"\nformat = \"json\"", &["log"], &["log.format"]),
            ("[shutdown]\ndrain_s = 5", &["shutdown"], &[]),
            ("[privacy]\nip_mode = \"none\"\nrecord_retention_d = 3", &["privacy"], &["privacy.ip_mode"]),
            ("[media]\nudp_listen = \"0.0.0.0:1\"\n[shard]\ncount = 3", &[], &["media", "shard"]),
            ("[ledger]\ncheckpoint_s = 3\n[admin]\nlisten = \"127.0.0.1:1\"", &[], &["admin", "ledger"]),
        ];
        for (text, changed, needs_restart) in cases {
            let reloaded = old.reloaded(parse(&text.replace("SECRET", secret)));
            assert_eq!((&*reloaded.changed, &*reloaded.needs_restart), (*changed, *needs_restart), "{text}");
            // What waits for a restart has not changed.
            let again = reloaded.config.reloaded(parse(&text.replace("SECRET", secret)));
            assert_eq!((&*again.changed, &*again.needs_restart), (&[][..], *needs_restart), "{text}");
        }
    }
}

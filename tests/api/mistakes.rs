//! Wrong configuration files, one mistake each, and what an operator reads: the whole line, for it is all there is.

use crate::binary::{output, write};

/// A file, and the line on standard error after `stube: `.
const WRONG: &[(&str, &str)] = &[
    (
        "[http]\nlisen = \"127.0.0.1:7880\"",
        "http.lisen: unknown field `lisen`, expected one of `listen`, `public_url`, `trusted_proxies`, `cors_origins`, `tls`",
    ),
    (
        "[htpp]\nlisten = \"127.0.0.1:7880\"",
        "htpp: unknown field `htpp`, expected one of `keys`, `http`, `admin`, `media`, `ice_server`, `shard`, `rooms`, `ledger`, `privacy`, `quota`, `webhook`, `shutdown`, `log`, `traces`",
    ),
    ("listen = \"127.0.0.1:7880\"", "listen: expected a section, such as [http]"),
    ("[http]\nlisten = 7880", "http.listen: invalid type: integer `7880`, expected socket address"),
    ("[http]\nlisten = \"7880\"", "http.listen: invalid socket address syntax"),
    ("[http]\nlisten = \"localhost:7880\"", "http.listen: invalid socket address syntax"),
    ("[http]\nlisten = \"127.0.0.1\"", "http.listen: invalid socket address syntax"),
    ("[http]\nlisten = \"127.0.0.1:77880\"", "http.listen: invalid socket address syntax"),
    (
        "[http]\npublic_url = \"sfu.example.org\"",
        "http.public_url: expected http:// or https:// and a host, without a path",
    ),
    (
        "[http]\npublic_url = \"https://sfu.example.org/stube\"",
        "http.public_url: expected http:// or https:// and a host, without a path",
    ),
    (
        "[http]\ntrusted_proxies = [\"10.0.0.0/33\"]",
        "http.trusted_proxies[0]: expected IP addresses or networks such as \"10.0.0.0/8\"",
    ),
    (
        "[http]\ntrusted_proxies = \"10.0.0.0/8\"",
        "http.trusted_proxies: invalid type: string \"10.0.0.0/8\", expected a sequence",
    ),
    (
        "[http]\ncors_origins = [\"*.example.org\"]",
        "http.cors_origins: expected \"*\" or origins such as \"https://example.org\"",
    ),
    (
        "[http.tls]\ndomain = \"sfu.example.org\"",
        "http.tls.domain: unknown field `domain`, expected one of `certificate`, `key`, `domains`, `acme_directory`, `acme_contact`, `acme_root`",
    ),
    (
        "[http.tls]\ncertificate = \"/nowhere/fullchain.pem\"",
        "http.tls.key: certificate and key go together: set both, or neither",
    ),
    (
        "[http.tls]\nkey = \"/nowhere/key.pem\"",
        "http.tls.certificate: certificate and key go together: set both, or neither",
    ),
    (
        "[http.tls]\ncertificate = \"/nowhere/fullchain.pem\"\nkey = \"/nowhere/key.pem\"",
        "http.tls.certificate: /nowhere/fullchain.pem: No such file or directory (os error 2)",
    ),
    (
        "[http.tls]\ncertificate = \"/dev/null\"\nkey = \"/dev/null\"",
        "http.tls.certificate: /dev/null: no certificate in it: expected PEM with -----BEGIN CERTIFICATE-----",
    ),
    (
        "[http.tls]\ncertificate = \"a.pem\"\nkey = \"b.pem\"\ndomains = [\"sfu.example.org\"]",
        "http.tls.domains: the certificate is in files already; take either those or domains out",
    ),
    (
        "[http.tls]\ndomains = [\"*.example.org\"]",
        "http.tls.domains: expected names such as \"sfu.example.org\", in lower case, without wildcards",
    ),
    (
        "[http.tls]\ndomains = \"sfu.example.org\"",
        "http.tls.domains: invalid type: string \"sfu.example.org\", expected a sequence",
    ),
    (
        "[http.tls]\nacme_directory = \"acme-v02.api.letsencrypt.org\"",
        "http.tls.acme_directory: expected the https:// URL of an ACME server's directory",
    ),
    ("[http.tls]\nacme_contact = \"operator\"", "http.tls.acme_contact: expected an e-mail address, or \"\" for none"),
    (
        "[http]\nlisten = \"192.0.2.7:443\"\n[media]\ntcp_listen = \"0.0.0.0:443\"",
        "media.tcp_listen: to share the port of http.listen, expected the same address as well: 192.0.2.7:443",
    ),
    ("[admin]\nlisten = \"\"", "admin.listen: invalid socket address syntax"),
    (
        "[media]\nudp_listen = \"0.0.0.0:65535\"\n[shard]\ncount = 2",
        "media.udp_listen: each further shard takes the next port, and they end at 65535",
    ),
    ("[media]\ntcp_listen = \"off\"", "media.tcp_listen: expected an address and port, or \"\" for none"),
    ("[media]\nadvertise = [\"sfu.example.org\"]", "media.advertise[0]: invalid IP address syntax"),
    ("[media]\nadvertise = [\"0.0.0.0\"]", "media.advertise: expected addresses that clients can reach"),
    ("[media]\nconnect_timeout_s = 0", "media.connect_timeout_s: expected 1 to 86400 seconds"),
    ("[media]\nloudest = 0", "media.loudest: expected 1 to 16, as many as clients may have slots for"),
    ("[media]\nrestart_timeout_s = \"30s\"", "media.restart_timeout_s: invalid type: string \"30s\", expected u64"),
    ("[shard]\ncount = 2000", "shard.count: expected at most 1024; 0 takes one a core"),
    ("[shard]\ncount = -1", "shard.count: invalid value: integer `-1`, expected usize"),
    ("[rooms]\nmax_participants = 0", "rooms.max_participants: a room takes at least one participant"),
    ("[rooms]\nauto_create = \"yes\"", "rooms.auto_create: invalid type: string \"yes\", expected a boolean"),
    ("[rooms]\nempty_timeout_s = 90000", "rooms.empty_timeout_s: expected 1 to 86400 seconds"),
    ("[ledger]\nurl = \"mysql://stube:hunter2@db/stube\"", "ledger.url: expected sqlite://FILE or postgres://…"),
    ("[ledger]\ncheckpoint_s = 0", "ledger.checkpoint_s: expected 1 to 60 seconds"),
    (
        "[privacy]\nip_mode = \"partial\"",
        "privacy.ip_mode: unknown variant `partial`, expected one of `none`, `prefix`, `hmac`, `full`",
    ),
    (
        "[privacy]\nrecord_retention_d = 30",
        "privacy.record_retention_d: expected at most 14 days; for longer, set privacy.legal_basis_note",
    ),
    (
        "[privacy]\nrecord_retention_d = 4000\nlegal_basis_note = \"we like data\"",
        "privacy.record_retention_d: expected at most 3653 days",
    ),
    ("[privacy]\nfull_address_retention_d = 8", "privacy.full_address_retention_d: expected 0 to 7 days"),
    ("[privacy]\nsum_retention_d = 7", "privacy.sum_retention_d: expected 32 to 3653 days"),
    (
        "[quota.default]\nmax_room = 5",
        "quota.default.max_room: unknown field `max_room`, expected one of `max_rooms`, `max_participants`, `max_participants_per_room`, `participant_minutes_per_month`, `egress_bytes_per_month`, `sessions_per_ip`, `joins_per_ip_per_minute`",
    ),
    ("[quota.nobody]\nmax_rooms = 5", "quota.nobody: there is no such API key"),
    (
        "[quota]\nmax_rooms = 5",
        "quota.max_rooms: invalid type: integer `5`, expected a section, such as [quota.default]",
    ),
    ("[keys]\nmap = \"hunter2-hunter2\"", "keys.map: a secret has at least 32 bytes"),
    ("[keys]\nmap = 31337", "keys.map: expected a string"),
    (
        "[keys]\n\"map:service\" = \"hunter2-hunter2-hunter2-hunter2-hunter2\"",
        "keys: an API key is not empty and has no colon and no control characters",
    ),
    ("[keys]\nmap = hunter2", "line 2: not valid TOML: string values must be quoted, expected literal string"),
    ("keys = \"hunter2\"", "keys: expected a section, such as [http]"),
    (
        "[keys]\nmap = \"hunter2-hunter2-hunter2-hunter2-hunter2\"\nmap = \"hunter3-hunter3-hunter3-hunter3-hunter3\"",
        "line 3: not valid TOML: duplicate key",
    ),
    (
        "[keys]\ndevkey = \"devsecret-devsecret-devsecret-dev\"\n[http]\nlisten = \"0.0.0.0:7880\"",
        "keys.devkey with http.listen: everyone knows the secret of devkey; replace it before listening on 0.0.0.0:7880",
    ),
    (
        "[[webhook]]\nurl = \"ftp://map.example.org/stube\"\nsecret = \"hunter2-hunter2-hunter2-hunter2\"",
        "webhook[0].url: expected https://; http:// is for loopback hosts alone",
    ),
    (
        "[[webhook]]\nurl = \"http://map.example.org/stube\"\nsecret = \"hunter2-hunter2-hunter2-hunter2\"",
        "webhook[0].url: expected https://; http:// is for loopback hosts alone",
    ),
    (
        "[[webhook]]\nurl = \"https://10.0.0.7/stube\"\nsecret = \"hunter2-hunter2-hunter2-hunter2\"",
        "webhook[0].url: the host is a private address; webhooks reach those only where the operator allows them",
    ),
    (
        "[[webhook]]\nurl = \"https://map.example.org/stube\"\nsecret = \"hunter2\"",
        "webhook[0].secret: expected whsec_ and base64 of at least 24 bytes, or other text of at least as many",
    ),
    ("[[webhook]]\nurl = \"https://map.example.org/stube\"", "webhook[0]: missing field `secret`"),
    (
        "[[ice_server]]\nurls = [\"turn.example.org\"]",
        "ice_server[0].urls[0]: expected stun:HOST:PORT, turn:HOST:PORT?transport=udp, …tcp, or turns:HOST:PORT?transport=tcp",
    ),
    ("[[ice_server]]\nurls = [\"turn:turn.example.org\"]", "ice_server[0].secret: a TURN server needs its secret"),
    (
        "[[ice_server]]\nurls = [\"stun:a\"]\nsecret = \"hunter2\"",
        "ice_server[0].urls: STUN servers take no secret; give them a section of their own",
    ),
    ("[[ice_server]]\nurls = []", "ice_server[0].urls: expected 1 to 8 URLs"),
    ("[[ice_server]]\nurls = [\"stun:a\"]\nttl_s = 1", "ice_server[0].ttl_s: expected 60 to 604800 seconds"),
    (
        "[[webhook]]\nurl = \"https://map.example.org/stube\"\nsecret = \"hunter2-hunter2-hunter2-hunter2\"\nkey = \"nobody\"",
        "webhook[0].key: no such API key under [keys]",
    ),
    (
        "[webhook]\nurl = \"https://map.example.org/stube\"\nsecret = \"hunter2-hunter2-hunter2-hunter2\"",
        "webhook: invalid type: map, expected a sequence",
    ),
    (
        "[log]\nlevel = \"loud\"",
        "log.level: expected error, warn, info, debug, trace, or directives such as \"info,stube::control=debug\"",
    ),
    ("[log]\nformat = \"xml\"", "log.format: unknown variant `xml`, expected `text` or `json`"),
    ("[http", "line 1: not valid TOML: unclosed table, expected `]`"),
    ("[http]\nlisten = \"127.0.0.1:7880", "line 2: not valid TOML: invalid basic string, expected `\"`"),
    ("ledger = \"postgres://stube:hunter2@db/stube\"", "ledger: expected a section, such as [http]"),
    ("webhook = [\"https://map.example.org/hunter2\"]", "webhook: expected a section, such as [http]"),
];

#[test]
fn every_mistake_has_its_own_line() {
    for (index, (text, line)) in WRONG.iter().enumerate() {
        let config = write(&format!("wrong-{index}"), text);
        let output = output(&["check-config"], &config, &[]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{text}: {error}");
        assert_eq!(error, format!("stube: {line}\n"), "{text}");
        assert!(output.stdout.is_empty() && !error.contains("hunter") && !error.contains("31337"), "{text}: {error}");
    }
}

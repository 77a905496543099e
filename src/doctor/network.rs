//! Judges ports, addresses, sockets, names and the public URL.

use std::net::IpAddr;

use super::finding::Finding;
use super::observe::{Addresses, Observations, Port, PortState, PublicAnswer};
use crate::command::Transport;
use crate::webhook::address::Scope;

/// Bytes in a KiB.
const KIB: usize = 1024;

/// Whether everything can be listened on, by a server or by the one that runs.
pub fn ports(seen: &Observations) -> Vec<Finding> {
    let named = |port: &Port| {
        let protocol = if port.transport == Transport::Udp { "UDP" } else { "TCP" };
        format!("{} {protocol} {}", port.what, port.address)
    };
    let list = |state: PortState| {
        let such: Vec<_> = seen.ports.iter().filter(|port| port.state == state).map(named).collect();
        such.join(", ")
    };
    let mut findings: Vec<_> = seen.ports.iter().filter_map(|port| judged_port(port, &named(port))).collect();
    let good = [("free", list(PortState::Free)), ("held by the server that runs", list(PortState::Held))];
    let said = good.iter().filter(|(_, ports)| !ports.is_empty()).map(|(word, ports)| format!("{ports}: {word}"));
    let said: Vec<String> = said.collect();
    if !said.is_empty() {
        findings.insert(0, Finding::ok(said.join("; ")));
    }
    findings
}

fn judged_port(port: &Port, name: &str) -> Option<Finding> {
    let fail = |why: &str, advice| Some(Finding::fail(format!("{name}: {why}"), advice));
    match &port.state {
        PortState::Free if port.privileged => Some(Finding::warn(
            format!("{name}: for root alone"),
            "a port below 1024 needs a capability that the unit does not have, or stube-http.socket; see Networks in \
             operations.md",
        )),
        PortState::Free | PortState::Held => None,
        PortState::Taken => fail(
            "somebody else has it",
            "`ss -lnptu` as root tells who; for HTTP it may be systemd, by stube-http.socket, which is fine",
        ),
        PortState::Forbidden => fail(
            "this user may not listen there",
            "a port below 1024 needs a capability, or stube-http.socket; see Networks in operations.md",
        ),
        PortState::Foreign => fail(
            "the address is none of this machine's",
            "listen on one of its addresses or on the unspecified one, and tell clients others by media.advertise",
        ),
        PortState::Other(error) => fail(error, "look at the address in the configuration"),
    }
}

/// Whether the admin listener is kept from strangers.
pub fn admin(seen: &Observations) -> Vec<Finding> {
    const ADVICE: &str = "whoever reaches the admin listener sees who is in which call and may stop the server: listen on \
                          loopback or on a private address, or keep its port behind the firewall";
    let Some(listen) = seen.admin else { return Vec::new() };
    // A public address that leads here is as public as one of our own: there is a NAT that hands everything on.
    let ours = seen.addresses.iter().flat_map(|addresses| addresses.interfaces.iter().chain(&addresses.declared));
    let reached: Vec<IpAddr> = match listen.is_unspecified() {
        true => ours.copied().filter(|ip| listen.is_ipv6() || ip.is_ipv4()).collect(),
        false => vec![listen],
    };
    let public: Vec<IpAddr> = reached.into_iter().filter(|ip| Scope::of(*ip) == Scope::Global).collect();
    vec![match public.is_empty() {
        true => Finding::ok(format!("it listens on {listen}, which is not public")),
        false => Finding::warn(format!("it listens on {}, which is public", listed(&public)), ADVICE),
    }]
}

/// Whether clients are sent to where they can get.
pub fn addresses(seen: &Observations) -> Vec<Finding> {
    let Some(addresses) = &seen.addresses else { return Vec::new() };
    if addresses.declared.is_empty() {
        return vec![found(addresses)];
    }
    addresses.declared.iter().map(|address| declared(*address, addresses)).collect()
}

/// Addresses that were not declared, but found on the interfaces.
fn found(addresses: &Addresses) -> Finding {
    const ADVICE: &str =
        "clients elsewhere cannot reach these; behind a NAT set media.advertise to the public addresses";
    let list = listed(&addresses.told);
    let any = |scope: Scope| addresses.told.iter().any(|address| Scope::of(*address) == scope);
    if addresses.told.is_empty() {
        return Finding::fail("no interface has an address", "bring the network up, or set media.advertise");
    }
    if any(Scope::Global) {
        return Finding::ok(format!("clients are told {list}"));
    }
    let only_loopback = addresses.told.iter().all(|address| Scope::of(*address) == Scope::Loopback);
    match (only_loopback, addresses.public) {
        (_, false) => Finding::ok(format!("clients are told {list}; HTTP is for this machine only")),
        (true, true) => Finding::fail(format!("clients are told {list}, which is this machine alone"), ADVICE),
        (false, true) => Finding::warn(format!("clients are told {list}, private addresses"), ADVICE),
    }
}

/// An address of `media.advertise`.
fn declared(address: IpAddr, addresses: &Addresses) -> Finding {
    let scope = Scope::of(address);
    if addresses.interfaces.contains(&address) {
        return match scope {
            Scope::Loopback if addresses.public => Finding::fail(
                format!("media.advertise has {address}, which is this machine alone"),
                "set media.advertise to addresses that clients can reach",
            ),
            Scope::Global => Finding::ok(format!("{address} is advertised, and on an interface")),
            _ => Finding::ok(format!("{address} is advertised, and on an interface; it is for this network only")),
        };
    }
    let rival = |ip: &&IpAddr| ip.is_ipv4() == address.is_ipv4() && Scope::of(**ip) == Scope::Global;
    match (scope, addresses.interfaces.iter().find(rival)) {
        (Scope::Global, None) => {
            Finding::ok(format!("{address} is advertised, and on no interface: a NAT has to pass the same ports here"))
        }
        (Scope::Global, Some(own)) => Finding::warn(
            format!("{address} is advertised, and on no interface; this machine has {own}"),
            "if no NAT is before this machine, take media.advertise out or correct it",
        ),
        _ => Finding::fail(
            format!("{address} is advertised, on no interface, and none that clients elsewhere could reach"),
            "set media.advertise to the public addresses of the NAT",
        ),
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether the kernel holds bursts. At the start the shards say it.
pub fn buffers(seen: &Observations) -> Vec<Finding> {
    const ADVICE: &str = "bursts of media are lost; set net.core.rmem_max and net.core.wmem_max to 4194304 in /etc/sysctl.d, then restart";
    let finding = match &seen.socket {
        None => return Vec::new(),
        Some(Err(error)) => Finding::fail(format!("no UDP socket: {error}"), "look at media.udp_listen"),
        Some(Ok(facts)) => {
            let text =
                format!("{} KiB of {} KiB are granted to sockets", facts.buffer / KIB, facts.buffer_wanted / KIB);
            if facts.buffer < facts.buffer_least { Finding::warn(text, ADVICE) } else { Finding::ok(text) }
        }
    };
    vec![finding]
}

/// Whether many datagrams go through one system call.
pub fn offload(seen: &Observations) -> Vec<Finding> {
    let Some(Ok(facts)) = &seen.socket else { return Vec::new() };
    let text = format!(
        "{} datagrams to send (GSO), {} to receive (GRO) in one system call",
        facts.send_segments, facts.receive_segments
    );
    vec![match facts.send_segments.min(facts.receive_segments) {
        0 | 1 => Finding::warn(
            text,
            "the kernel takes datagrams one by one, which costs processor time; use Linux 5.0 or later, not a sandboxed kernel",
        ),
        _ => Finding::ok(text),
    }]
}

/// Whether the server answers under its own name.
pub fn public_url(seen: &Observations) -> Vec<Finding> {
    let Some((url, answer)) = &seen.public_url else { return Vec::new() };
    let runs = matches!(seen.server, Some(Ok(_)));
    vec![match answer {
        PublicAnswer::Stube => Finding::ok(format!("a Stube answers at {url}")),
        PublicAnswer::Other(what) | PublicAnswer::Silence(what) if !runs => {
            Finding::warn(format!("{url}: {what}; no server runs here"), "start the server, then ask again")
        }
        PublicAnswer::Other(what) => {
            Finding::fail(format!("{url}: {what}"), "lead the reverse proxy of that name to http.listen")
        }
        PublicAnswer::Silence(why) => Finding::fail(
            format!("{url}: {why}"),
            "look at the name in DNS, at the reverse proxy and at the firewall; behind a NAT, ask from elsewhere instead",
        ),
    }]
}

/// Whether the names that a certificate is ordered for lead here: the ACME server looks where they do.
pub fn domains(seen: &Observations) -> Vec<Finding> {
    const UNKNOWN: &str =
        "give the name an A or AAAA record with this machine's address: without one it gets no certificate";
    let Some(addresses) = &seen.addresses else { return Vec::new() };
    let judge = |(domain, found): &(String, Result<Vec<IpAddr>, String>)| match found {
        Ok(found) => leads(domain, found, addresses),
        Err(why) => Finding::fail(format!("{domain}: {why}"), UNKNOWN),
    };
    seen.domains.iter().map(judge).collect()
}

/// Where a name leads. What this machine's addresses are outside is only known if one is public or declared; IPv6 is the
/// same outside, and ACME servers ask by it first.
fn leads(domain: &str, found: &[IpAddr], addresses: &Addresses) -> Finding {
    const ADVICE: &str = "no certificate comes unless TCP 443 of each address gets here: correct the name's A and AAAA \
                          records, if nothing there passes it on";
    let own = || addresses.interfaces.iter().chain(&addresses.declared);
    let is_known = |ip: &IpAddr| own().any(|own| own.is_ipv4() == ip.is_ipv4() && Scope::of(*own) == Scope::Global);
    let text = format!("{domain} leads to {}", listed(found));
    let elsewhere: Vec<IpAddr> = found.iter().copied().filter(|ip| !own().any(|own| own == ip)).collect();
    let is_wrong = |ip: &IpAddr| Scope::of(*ip) != Scope::Loopback && (ip.is_ipv6() || is_known(ip));
    let wrong: Vec<IpAddr> = elsewhere.iter().copied().filter(is_wrong).collect();
    match (wrong.is_empty(), elsewhere.is_empty()) {
        (false, _) => Finding::warn(format!("{text}; not this machine's: {}", listed(&wrong)), ADVICE),
        (true, true) => Finding::ok(format!("{text}, this machine")),
        (true, false) => Finding::ok(format!("{text}; whether that gets here cannot be seen here")),
    }
}

/// What cannot be known here, with how to find out.
pub fn unproven(seen: &Observations) -> String {
    let Some(addresses) = &seen.addresses else { return "whether clients can reach this machine.".to_owned() };
    let (first, last) = addresses.udp_ports;
    let udp = if first == last { first.to_string() } else { format!("{first} to {last}") };
    let tcp = addresses.tcp_port.map_or(String::new(), |port| format!(" and TCP {port}"));
    format!(
        "whether clients elsewhere reach UDP {udp}{tcp} at {}. Nothing on this machine can tell, for its own packets pass no \
         firewall before it. Join a call from another network; stube_joins_total{{result=\"connect_timeout\"}} of /metrics \
         counts those that were let in over HTTP and whose media did not arrive.",
        listed(&addresses.told)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict::{self, Fail, Ok as Fine, Warn};
    use crate::shard::probe::SocketFacts;

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(|ip| ip.parse().expect("an address")).collect()
    }

    fn verdicts(findings: &[Finding]) -> Vec<Verdict> {
        findings.iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn ports_are_free_held_or_a_problem() {
        let port = |state: PortState, privileged| Port {
            what: "HTTP",
            transport: Transport::Tcp,
            address: "127.0.0.1:80".parse().expect("an address"),
            state,
            privileged,
        };
        for (state, privileged, expected) in [
            (PortState::Free, false, &[Fine][..]),
            (PortState::Held, true, &[Fine]),
            (PortState::Free, true, &[Fine, Warn]),
            (PortState::Taken, false, &[Fail]),
            (PortState::Forbidden, false, &[Fail]),
            (PortState::Foreign, false, &[Fail]),
            (PortState::Other("odd".to_owned()), false, &[Fail]),
        ] {
            let seen = Observations { ports: vec![port(state.clone(), privileged)], ..Observations::default() };
            assert_eq!(verdicts(&ports(&seen)), expected, "{state:?}");
        }
    }

    #[test]
    fn the_admin_listener_is_kept_from_strangers() {
        let (own, public) = ("127.0.0.1 10.0.0.2 2606:4700::1", "127.0.0.1 9.9.9.9");
        for (listen, interfaces, declared, expected) in [
            ("127.0.0.1", public, "", Fine),
            ("10.0.0.2", own, "", Fine),
            ("9.9.9.9", public, "", Warn),
            ("0.0.0.0", public, "", Warn),
            ("0.0.0.0", own, "", Fine),
            // Behind a 1:1 NAT.
            ("0.0.0.0", own, "8.8.4.4", Warn),
            ("10.0.0.2", own, "8.8.4.4", Fine),
            // An IPv6 socket takes IPv4, too.
            ("::", own, "", Warn),
            ("::", public, "", Warn),
            ("::1", own, "", Fine),
        ] {
            let (interfaces, declared) = (ips(interfaces), ips(declared));
            let place = Addresses { interfaces: interfaces.clone(), declared, ..Addresses::default() };
            let seen =
                Observations { admin: ips(listen).first().copied(), addresses: Some(place), ..Observations::default() };
            assert_eq!(verdicts(&admin(&seen)), [expected], "{listen} {interfaces:?}");
        }
    }

    #[test]
    fn clients_are_sent_to_where_they_can_get() {
        let own = "127.0.0.1 10.0.0.2";
        let public = "127.0.0.1 9.9.9.9";
        // Interfaces, media.advertise, whether HTTP is for others.
        for (interfaces, declared, outside, expected) in [
            ("", "", true, &[Fail][..]),
            ("127.0.0.1", "", true, &[Fail]),
            ("127.0.0.1", "", false, &[Fine]),
            (own, "", true, &[Warn]),
            (own, "", false, &[Fine]),
            (public, "", true, &[Fine]),
            (own, "9.9.9.9", true, &[Fine]),
            (public, "8.8.8.8", true, &[Warn]),
            (public, "2606:4700::1", true, &[Fine]),
            (own, "10.0.0.3", true, &[Fail]),
            (own, "10.0.0.2", true, &[Fine]),
            (own, "203.0.113.7 9.9.9.9", true, &[Fail, Fine]),
            (own, "127.0.0.1", true, &[Fail]),
            (own, "127.0.0.1", false, &[Fine]),
        ] {
            let (interfaces, declared) = (ips(interfaces), ips(declared));
            let told = if declared.is_empty() { interfaces.clone() } else { declared.clone() };
            let place = Addresses { interfaces, declared, told, public: outside, ..Addresses::default() };
            let seen = Observations { addresses: Some(place.clone()), ..Observations::default() };
            let found = addresses(&seen);
            assert_eq!(verdicts(&found), expected, "{place:?}");
            assert!(found.iter().all(|finding| !finding.advice.is_some_and(|text| text.contains("10."))));
        }
    }

    #[test]
    fn sockets_have_room_and_offload() {
        let facts = |buffer, send_segments, receive_segments| SocketFacts {
            buffer,
            buffer_wanted: 4096 * KIB,
            buffer_least: 512 * KIB,
            send_segments,
            receive_segments,
        };
        for (buffer, send, receive, expected) in [
            (4096 * KIB, 64, 64, [Fine, Fine]),
            (208 * KIB, 64, 64, [Warn, Fine]),
            (512 * KIB, 1, 64, [Fine, Warn]),
            (512 * KIB, 64, 1, [Fine, Warn]),
        ] {
            let seen = Observations { socket: Some(Ok(facts(buffer, send, receive))), ..Observations::default() };
            assert_eq!([verdicts(&buffers(&seen))[0], verdicts(&offload(&seen))[0]], expected);
        }
        let seen = Observations { socket: Some(Err("none".to_owned())), ..Observations::default() };
        assert_eq!((verdicts(&buffers(&seen)), verdicts(&offload(&seen))), (vec![Fail], vec![]));
    }

    #[test]
    fn the_public_url_leads_to_a_server() {
        let answers = |answer: PublicAnswer, runs: bool| {
            let server = Some(if runs { Ok(serde_json::Value::Null) } else { Err("refused".to_owned()) });
            let public_url = Some(("https://sfu.example.org".to_owned(), answer));
            verdicts(&public_url_of(Observations { server, public_url, ..Observations::default() }))
        };
        assert_eq!(answers(PublicAnswer::Stube, true), [Fine]);
        assert_eq!(answers(PublicAnswer::Other("502".to_owned()), true), [Fail]);
        assert_eq!(answers(PublicAnswer::Silence("no answer in time".to_owned()), true), [Fail]);
        assert_eq!(answers(PublicAnswer::Other("502".to_owned()), false), [Warn]);
    }

    fn public_url_of(seen: Observations) -> Vec<Finding> {
        public_url(&seen)
    }

    #[test]
    fn names_lead_here() {
        // Interfaces, media.advertise, where the name leads.
        for (interfaces, declared, found, expected) in [
            ("127.0.0.1 9.9.9.9", "", "9.9.9.9", Fine),
            ("127.0.0.1 9.9.9.9", "", "8.8.8.8", Warn),
            ("127.0.0.1 9.9.9.9", "", "9.9.9.9 8.8.8.8", Warn),
            // An old AAAA record beside a good A record.
            ("127.0.0.1 9.9.9.9", "", "9.9.9.9 2606:4700::1", Warn),
            ("10.0.0.2 2606:4700::1", "", "9.9.9.9 2606:4700::1", Fine),
            // Behind a NAT.
            ("127.0.0.1 10.0.0.2", "", "9.9.9.9", Fine),
            ("127.0.0.1 10.0.0.2", "9.9.9.9", "9.9.9.9", Fine),
            ("127.0.0.1 10.0.0.2", "9.9.9.9", "8.8.8.8", Warn),
            // By /etc/hosts, as Debian has it.
            ("127.0.0.1 9.9.9.9", "", "127.0.1.1", Fine),
        ] {
            let (interfaces, declared) = (ips(interfaces), ips(declared));
            let addresses = Some(Addresses { interfaces, declared, ..Addresses::default() });
            let domains = vec![("sfu.example.org".to_owned(), Ok(ips(found)))];
            let seen = Observations { addresses, domains, ..Observations::default() };
            assert_eq!(verdicts(&super::domains(&seen)), [expected], "{found} {seen:?}");
        }
        let domains = vec![("sfu.example.org".to_owned(), Err("not known".to_owned()))];
        let seen = Observations { addresses: Some(Addresses::default()), domains, ..Observations::default() };
        assert_eq!(verdicts(&super::domains(&seen)), [Fail]);
    }

    #[test]
    fn what_cannot_be_known_is_said() {
        let place =
            Addresses { told: ips("9.9.9.9"), udp_ports: (7882, 7885), tcp_port: Some(7881), ..Addresses::default() };
        let text = unproven(&Observations { addresses: Some(place), ..Observations::default() });
        assert!(text.contains("UDP 7882 to 7885 and TCP 7881 at 9.9.9.9"), "{text}");
    }
}

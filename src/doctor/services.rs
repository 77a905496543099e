//! Judges the server that runs, its keys, its ledger and its webhooks.

use super::finding::Finding;
use super::observe::{Observations, Validity};
use super::relay;
use crate::ledger::store::Examined;
use crate::webhook::{Knocked, backoff::Answer};

/// From when on the end of a certificate is near: ACME renews three weeks before, and people take a week.
const EXPIRES_SOON_D: i64 = 14;

/// What is said of the ledger, and what the server that runs says of it.
const LEDGER_ADVICE: &str = "see \"The ledger cannot be written\" in incidents.md";

/// Whether a server runs. None need: the question may come before the first start.
pub fn server(seen: &Observations) -> Vec<Finding> {
    let Some(server) = &seen.server else { return Vec::new() };
    vec![match server {
        Err(why) => Finding::ok(format!("none runs with this configuration: {why}")),
        Ok(node) => {
            let (version, state) = (node["version"].as_str().unwrap_or("?"), node["state"].as_str().unwrap_or("?"));
            let shards = node["shards"].as_array().map(Vec::as_slice).unwrap_or_default();
            let saturated = shards.iter().filter(|shard| shard["saturated"] == true).count();
            let text = format!("Stube {version} runs, {state}");
            match saturated {
                0 => Finding::ok(text),
                _ => Finding::warn(
                    format!("{text}; {saturated} of {} shards are saturated", shards.len()),
                    "calls suffer: see \"A shard is saturated\" in incidents.md",
                ),
            }
        }
    }]
}

/// Whether anybody can use the server, and not everybody.
pub fn keys(seen: &Observations) -> Vec<Finding> {
    let Some(keys) = seen.keys else { return Vec::new() };
    vec![match (keys.count, keys.shipped) {
        (0, _) => Finding::fail("no API key", "put a key into [keys]: nobody can allocate a room or sign a token"),
        (_, true) => Finding::warn(
            "the shipped API key, which everybody knows",
            "replace devkey in [keys] before others can reach this machine, also through a reverse proxy",
        ),
        (count, false) => Finding::ok(crate::table::count(count as u64, "API key", "API keys")),
    }]
}

/// Whether records can be written.
pub fn ledger(seen: &Observations) -> Vec<Finding> {
    const ELSEWHERE: &str = "set STATE_DIRECTORY as the server has it, such as /var/lib/stube, then ask again";
    let Some(examined) = &seen.ledger else { return Vec::new() };
    let node = seen.server.as_ref().and_then(|server| server.as_ref().ok());
    let fails = node.is_some_and(|node| node["ledger"]["writable"] == false);
    vec![match examined {
        Err(error) => Finding::fail(error.to_string(), LEDGER_ADVICE),
        Ok(_) if fails => Finding::fail("the server that runs cannot write it", LEDGER_ADVICE),
        Ok(Examined::Absent) if node.is_some() => {
            Finding::warn("there is none where it was looked for, but a server runs and has one", ELSEWHERE)
        }
        Ok(Examined::Absent) => Finding::ok("there is none yet, and it can be made"),
        Ok(Examined::Present { schema }) => {
            Finding::ok(format!("it can be written, and is whole; schema version {schema}"))
        }
    }]
}

/// Whether receivers are there.
pub fn webhooks(seen: &Observations) -> Vec<Finding> {
    match &seen.webhooks {
        None => Vec::new(),
        Some(Err(error)) => vec![Finding::fail(error.clone(), "no webhook can be sent before that is mended")],
        Some(Ok(knocked)) => knocked.iter().map(knock).collect(),
    }
}

fn knock(knocked: &Knocked) -> Finding {
    const SILENT: &str = "see \"Webhooks are late\" in incidents.md; events wait four days for their receiver";
    let Knocked { host, answer } = knocked;
    match *answer {
        Answer::Status { code, .. } if code >= 500 => Finding::warn(format!("{host} answers {code} to HEAD"), SILENT),
        Answer::Status { code: code @ (404 | 410), .. } => Finding::warn(
            format!("{host} answers {code} to HEAD"),
            "look at the path of its URL, unless that receiver knows POST alone",
        ),
        Answer::Status { code, .. } => Finding::ok(format!("{host} is there ({code} to HEAD; no event was sent)")),
        Answer::Silence(why) | Answer::Refused(why) => Finding::fail(format!("{host}: {why}"), SILENT),
    }
}

/// Whether clients will take the certificate for some time to come.
pub fn certificate(seen: &Observations) -> Vec<Finding> {
    const RENEWS: &str = "the server orders it when it starts, and renews it by itself: see \"TLS\" in operations.md";
    const FILES: &str = "renew the files, then `systemctl reload stube`";
    let Some(certificate) = &seen.certificate else { return Vec::new() };
    vec![match certificate {
        Err(why) => Finding::warn(why.clone(), RENEWS),
        Ok(Validity { left_s, renewed }) => {
            let (days, advice) = (left_s.div_euclid(86_400), if *renewed { RENEWS } else { FILES });
            match days {
                ..0 => Finding::fail("it has expired, or is not valid yet", advice),
                0..EXPIRES_SOON_D => Finding::warn(format!("valid for {days} more days"), advice),
                _ => Finding::ok(format!("valid for {days} more days")),
            }
        }
    }]
}

/// Whether the servers that clients are told of do what they are for.
pub fn ice_servers(seen: &Observations) -> Vec<Finding> {
    const SILENT: &str =
        "is it running, and does its firewall let this port in? For turns: is its certificate for this name?";
    const REFUSED: &str = "its static-auth-secret has to be the secret of this [[ice_server]], and its clock right";
    let judge = |(url, answer): &(String, relay::Answer)| match answer {
        relay::Answer::Answered => Finding::ok(format!("{url} answers")),
        relay::Answer::Relayed => Finding::ok(format!("{url} makes relays with our credentials")),
        relay::Answer::Refused => Finding::fail(format!("{url} makes no relay with our credentials"), REFUSED),
        relay::Answer::Silent(why) => Finding::fail(format!("{url}: {why}"), SILENT),
    };
    seen.ice_servers.iter().map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict::{Fail, Ok as Fine, Warn};
    use crate::doctor::observe::Keys;
    use crate::ledger::store::{Outage, StoreError};
    use serde_json::json;

    #[test]
    fn keys_are_there_and_secret() {
        for (count, shipped, expected) in [(0, false, Fail), (1, true, Warn), (2, false, Fine)] {
            let seen = Observations { keys: Some(Keys { count, shipped }), ..Observations::default() };
            assert_eq!(keys(&seen)[0].verdict, expected);
        }
    }

    #[test]
    fn a_server_need_not_run_but_should_not_be_saturated() {
        let node =
            |saturated: bool| Ok(json!({"version": "1", "state": "running", "shards": [{"saturated": saturated}]}));
        for (server, expected) in [(Err("refused".to_owned()), Fine), (node(false), Fine), (node(true), Warn)] {
            let seen = Observations { server: Some(server), ..Observations::default() };
            assert_eq!(super::server(&seen)[0].verdict, expected);
        }
    }

    #[test]
    fn a_ledger_is_examined_here_and_by_the_server() {
        let examine = |ledger: Result<Examined, StoreError>, writable: bool| {
            let server = Some(Ok(json!({"ledger": {"writable": writable}})));
            ledger_of(&Observations { ledger: Some(ledger), server, ..Observations::default() })
        };
        // Its ledger is elsewhere, and was not examined.
        assert_eq!(examine(Ok(Examined::Absent), true), Warn);
        let server = Some(Err("refused".to_owned()));
        assert_eq!(
            ledger_of(&Observations { ledger: Some(Ok(Examined::Absent)), server, ..Observations::default() }),
            Fine
        );
        assert_eq!(examine(Ok(Examined::Present { schema: 2 }), true), Fine);
        assert_eq!(examine(Ok(Examined::Present { schema: 2 }), false), Fail);
        assert_eq!(examine(Err(StoreError::Unavailable(Outage::DiskFull)), true), Fail);
    }

    fn ledger_of(seen: &Observations) -> crate::doctor::finding::Verdict {
        ledger(seen)[0].verdict
    }

    #[test]
    fn certificates_end() {
        let of = |left_s| Ok(Validity { left_s, renewed: false });
        let cases = [
            (Some(of(-1)), Some(Fail)),
            (Some(of(0)), Some(Warn)),
            (Some(of(13 * 86_400)), Some(Warn)),
            (Some(of(14 * 86_400)), Some(Fine)),
            (Some(Err("none".to_owned())), Some(Warn)),
            (None, None),
        ];
        for (certificate, expected) in cases {
            let seen = Observations { certificate: certificate.clone(), ..Observations::default() };
            let verdict = super::certificate(&seen).first().map(|finding| finding.verdict);
            assert_eq!(verdict, expected, "{certificate:?}");
        }
    }

    #[test]
    fn relays_are_made_or_not() {
        use crate::doctor::relay::Answer;
        let answers = [
            (Answer::Answered, Fine),
            (Answer::Relayed, Fine),
            (Answer::Refused, Fail),
            (Answer::Silent("no answer".to_owned()), Fail),
        ];
        for (answer, expected) in answers {
            let ice_servers = vec![("turn:a".to_owned(), answer.clone())];
            let seen = Observations { ice_servers, ..Observations::default() };
            assert_eq!(super::ice_servers(&seen)[0].verdict, expected, "{answer:?}");
        }
    }

    #[test]
    fn receivers_answer_or_do_not() {
        let status = |code| Answer::Status { code, retry_after: None };
        let answers = [
            (status(200), Fine),
            (status(405), Fine),
            (status(401), Fine),
            (status(404), Warn),
            (status(503), Warn),
            (Answer::Silence("it refuses connections"), Fail),
            (Answer::Refused("its name leads to an address that webhooks must not reach"), Fail),
        ];
        for (answer, expected) in answers {
            assert_eq!(knock(&Knocked { host: "example.org".to_owned(), answer }).verdict, expected, "{answer:?}");
        }
    }
}

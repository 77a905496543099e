//! `/v1/sessions`, `/whip` and `/whep`.

use super::examples;
use super::operation::Operation;
use crate::control::body::{SDP, SDP_FRAGMENT};
use crate::control::code::Code;

const TAG: &str = "Sessions";
const SESSION: &str = "/v1/sessions/{id}";

/// The operations.
pub fn operations() -> Vec<Operation> {
    let mut all = vec![
        joins(Operation::new(TAG, "post", "/v1/sessions", "openSession", "Join a room with an SDP offer")).about(
            "The body is a complete offer; it needs no candidates. The answer holds all of the server's. The same \
             identity joining again replaces its older session.",
        ),
        joins(Operation::new(TAG, "post", "/whip", "publishByWhip", "Publish by WHIP"))
            .about("RFC 9725; the same as `POST /v1/sessions`."),
        joins(Operation::new(TAG, "post", "/whep", "playByWhep", "Play by WHEP"))
            .about("One participant, or whoever speaks.")
            .with(&["participant"])
            .fails(&[Code::ParticipantNotFound]),
        Operation::new(TAG, "head", "/whep", "discoverWhep", "Find out that this is a WHEP endpoint")
            .answers_text(200, "It is.", SDP, ""),
    ];
    for (path, id) in [("/whip", "probeWhip"), ("/whep", "probeWhep")] {
        let probe = Operation::new(TAG, "get", path, id, "Find out that the endpoint is there");
        all.push(probe.answers_nothing(204, "It is."));
    }
    all.extend([probe(), change(), end()]);
    all
}

fn joins(operation: Operation) -> Operation {
    operation
        .for_clients()
        .takes_sdp(SDP, examples::OFFER)
        .answers_text(201, "The session, and the SDP answer.", SDP, examples::ANSWER)
        .headers(&["Location", "ETag", "Link"])
        .fails(&[Code::PublishForbidden, Code::RoomNotFound, Code::RoomFull, Code::PersonalIdentity])
        .fails(&[Code::OfferNotAcceptable, Code::QuotaExceeded, Code::Unavailable])
}

fn probe() -> Operation {
    Operation::new(TAG, "get", SESSION, "probeSession", "Find out whether a session lives")
        .for_holders()
        .with(&["session"])
        .answers_nothing(204, "It does.")
        .fails(&[Code::SessionNotFound])
}

fn change() -> Operation {
    Operation::new(TAG, "patch", SESSION, "changeSession", "Trickle candidates, restart ICE, or offer anew")
        .about("What it is follows from the body. Credentials that differ from the session's restart ICE.")
        .for_holders()
        .with(&["session", "If-Match"])
        .takes_sdp(SDP_FRAGMENT, examples::FRAGMENT)
        .takes_sdp(SDP, examples::OFFER)
        .answers_text(
            200,
            "ICE restarts, with the server's fragment; or the SDP answer.",
            SDP_FRAGMENT,
            examples::FRAGMENT,
        )
        .answers_text(200, "", SDP, examples::ANSWER)
        .headers(&["ETag"])
        .answers_nothing(204, "The candidates are known.")
        .fails(&[Code::SessionNotFound, Code::StaleEtag, Code::IfMatchRequired])
        .fails(&[Code::OfferNotAcceptable, Code::PublishForbidden, Code::Unavailable])
}

fn end() -> Operation {
    Operation::new(TAG, "delete", SESSION, "endSession", "Leave")
        .about("`If-Match` is ignored.")
        .for_holders()
        .with(&["session"])
        .answers_nothing(200, "The session has ended.")
        .fails(&[Code::SessionNotFound, Code::Unavailable])
}

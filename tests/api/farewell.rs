//! What those in a call hear of a server that stops.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::caller::Caller;
use crate::client::{Server, join_token};

/// Asks for the room, and to join it, until nobody answers; gives back what was.
fn ask_while_it_lasts(server: &Server) -> impl Future<Output = Vec<(&'static str, u16)>> + use<> {
    let http = reqwest::Client::new();
    let room = server.call("GET", "/v1/rooms/hall");
    // Too short to be an offer: 400 as long as there is a room.
    let join = server.offer("/v1/sessions", &join_token("hall", "late"), "v=0");
    async move {
        let mut answers = Vec::new();
        loop {
            for (what, request) in [("read", &room), ("join", &join)] {
                let request = request.try_clone().and_then(|request| request.build().ok()).expect("a request");
                match http.execute(request).await {
                    Ok(response) => answers.push((what, response.status().as_u16())),
                    Err(_) => return answers,
                }
            }
        }
    }
}

/// Enough that news of who has left before would fill the first flight of everybody's data channel.
const PEOPLE: u8 = 24;

#[tokio::test(flavor = "multi_thread")]
async fn everybody_of_a_large_room_hears_leave_before_the_server_is_gone() {
    let server = Server::with(&[("STUBE__SHARD__COUNT", "1")]).await;
    server.room("hall").await;
    let mut people = Vec::new();
    for number in 1..=PEOPLE {
        people.push(Caller::join(&server, "hall", &format!("p{number}"), number, false).await);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while people.iter().any(|caller| caller.told().is_empty()) {
        assert!(Instant::now() < deadline, "not everybody was welcomed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let began = Instant::now();
    let asked = ask_while_it_lasts(&server);
    let (_, answers) = tokio::join!(server.stop(), asked);
    let took = began.elapsed();
    // One who is told that there is no such room does not come back.
    assert!(
        answers.iter().all(|(_, status)| matches!(status, 200 | 400 | 503)),
        "{:?}",
        answers.iter().find(|(_, status)| *status == 404)
    );
    // What was delivered before the server went is read within a moment.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for caller in &people {
        let told = caller.told();
        let last = told.last().expect("a welcome at least");
        let expected = json!({"type": "leave", "reason": "server_shutdown", "action": "reconnect", "seq": told.len()});
        assert_eq!(last, &expected, "{}: {told:?}", caller.identity);
        assert!(told.iter().all(|message| message["event"] != "left"), "{}: {told:?}", caller.identity);
    }
    assert!(took < Duration::from_secs(4), "{took:?}");
}

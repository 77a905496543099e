//! Webhooks from the real server to a receiver that fails first.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::client::{Server, answered};

const SECRET: &[u8] = b"twenty-four bytes or more";

/// One request as it came.
struct Request {
    head: String,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        let value = self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        });
        value.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }
}

/// Takes one request and answers with this status.
async fn answer(listener: &TcpListener, status: u16) -> Request {
    let (mut stream, _) =
        tokio::time::timeout(Duration::from_secs(20), listener.accept()).await.expect("a call").expect("one");
    let mut text = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.expect("readable");
        text.extend_from_slice(&chunk[..read]);
        let whole = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = whole.split_once("\r\n\r\n") else { continue };
        let request = Request { head: head.to_owned(), body: body.to_owned() };
        if request.body.len() >= request.header("content-length").parse::<usize>().expect("a length") {
            let reply = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(reply.as_bytes()).await.expect("writable");
            return request;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_signed_and_in_order_although_the_receiver_fails_first() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let secret = format!("whsec_{}", STANDARD.encode(SECRET));
    let section = format!("\n[[webhook]]\nurl = \"{url}\"\nsecret = \"{secret}\"\nkey = \"mapservice\"\n");
    let server = Server::configured(&section, &[]).await;
    server.room("hall").await;
    answered(server.call("DELETE", "/v1/rooms/hall"), 204, "end").await;
    let failed = answer(&listener, 500).await;
    let first = answer(&listener, 204).await;
    let second = answer(&listener, 200).await;
    assert_eq!(failed.body, first.body, "the same event again");
    assert_eq!(failed.header("webhook-id"), first.header("webhook-id"));
    for (request, kind, seq) in [(&first, "room_started", 1), (&second, "room_finished", 2)] {
        let event: Value = serde_json::from_str(&request.body).expect("JSON");
        assert_eq!((&event["event"], &event["seq"]), (&json!(kind), &json!(seq)));
        assert_eq!(event["id"], request.header("webhook-id"));
        assert_eq!(request.header("content-type"), "application/webhook+json");
        let signed =
            format!("{}.{}.{}", request.header("webhook-id"), request.header("webhook-timestamp"), request.body);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
        assert_eq!(request.header("webhook-signature"), format!("v1,{}", STANDARD.encode(tag)));
        assert!(request.header("authorization").split('.').count() == 3, "a JWT");
    }
    server.stop().await;
}

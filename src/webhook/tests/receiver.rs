//! A receiver on loopback that does as its script says, well or badly.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::store::now_ms;

/// What is done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Status(u16),
    /// A status and one more header.
    With(u16, &'static str, String),
    /// Nothing, and the connection stays open.
    Hang,
    /// The connection is reset.
    Reset,
    /// 200 and a body without end.
    EndlessBody,
    /// 200 and a body of which one byte a second comes.
    SlowBody,
    /// 200, that much later.
    Late(Duration),
    /// What is no HTTP.
    Garbage,
}

/// A request as it came.
#[derive(Clone)]
pub struct Request {
    pub at: Instant,
    /// The same in milliseconds since 1970.
    pub at_ms: u64,
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub reply: Reply,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What to do with a request; the number is how many came before.
pub type Script = Arc<dyn Fn(&Request, usize) -> Reply + Send + Sync>;

/// Listens until it is dropped.
pub struct Receiver {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    pub fn start(script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::new(script))
    }

    pub fn start_at(address: SocketAddr, script: Script) -> Self {
        let listener = listen(address).expect("a port");
        let address = listener.local_addr().expect("its address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&requests);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                connections.spawn(async move {
                    let _ = serve(stream, &seen, &script).await;
                });
            }
        });
        Self { address, requests, _tasks: tasks }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What came so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("not poisoned").clone()
    }

    /// What comes, to be read after the end.
    pub fn log(&self) -> Arc<Mutex<Vec<Request>>> {
        Arc::clone(&self.requests)
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

async fn serve(stream: TcpStream, seen: &Mutex<Vec<Request>>, script: &Script) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let Some(mut request) = read(&mut stream).await? else { return Ok(()) };
        let reply = {
            let mut seen = seen.lock().expect("not poisoned");
            request.reply = script(&request, seen.len());
            seen.push(request.clone());
            request.reply
        };
        if !answer(stream.get_mut(), reply).await? {
            return Ok(());
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    assert!(line.ends_with(" HTTP/1.1\r\n"), "{line}");
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let body = String::from_utf8(body).expect("UTF-8");
    Ok(Some(Request { at: Instant::now(), at_ms: now_ms(), method, path, headers, body, reply: Reply::Hang }))
}

/// Whether the connection lives on.
async fn answer(stream: &mut TcpStream, reply: Reply) -> io::Result<bool> {
    let plain = |code: u16, more: &str| format!("HTTP/1.1 {code} X\r\ncontent-length: 2\r\n{more}\r\nok");
    match reply {
        Reply::Status(code) => stream.write_all(plain(code, "").as_bytes()).await?,
        Reply::With(code, name, value) => {
            stream.write_all(plain(code, &format!("{name}: {value}\r\n")).as_bytes()).await?;
        }
        Reply::Hang => std::future::pending().await,
        Reply::Reset => {
            stream.set_zero_linger()?;
            return Ok(false);
        }
        Reply::EndlessBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'x'; 64 * 1024]).await?;
            }
        }
        Reply::SlowBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                stream.write_all(b"x").await?;
            }
        }
        Reply::Late(after) => {
            tokio::time::sleep(after).await;
            stream.write_all(plain(200, "").as_bytes()).await?;
        }
        Reply::Garbage => {
            stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await?;
            return Ok(false);
        }
    }
    Ok(true)
}

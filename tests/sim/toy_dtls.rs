//! A stand-in for DTLS through str0m's public crypto provider: four datagrams instead of a handshake, and no entropy.
//!
//! Real DTLS draws from AWS-LC's own generator, which cannot be sealed. Everything above it (SRTP, SCTP) stays real.
//! The SRTP keys differ per direction and per session, as real ones do, so that mixed up keys are found out.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial, ProtocolVersion,
    SrtpProfile,
};
use str0m::crypto::{CryptoError, CryptoProvider};

use crate::seal::split_mix;

/// Record types: the numbers of DTLS, so that demultiplexing by first byte works.
const CLOSE: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
/// The flights: the client repeats its own until the server's next one is there, as DTLS does.
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const CLIENT_FINISHED: u8 = 3;
const SERVER_FINISHED: u8 = 4;
/// The least length of a real record; shorter datagrams are not DTLS.
const RECORD_BYTES: usize = 15;
const FLIGHT_INTERVAL: Duration = Duration::from_millis(200);
/// Two AES-128 keys and two 12-byte salts.
const KEYING_MATERIAL: usize = 56;

thread_local! {
    /// Numbers the sessions of a scenario; a scenario owns its thread.
    static SESSIONS: Cell<u64> = const { Cell::new(0) };
}

#[derive(Debug)]
struct ToyProvider;

/// str0m's provider with the toy in the place of DTLS.
pub fn provider() -> Arc<CryptoProvider> {
    static TOY: ToyProvider = ToyProvider;
    Arc::new(CryptoProvider { dtls_provider: &TOY, ..str0m::crypto::from_feature_flags() })
}

/// A certificate as far as the toy is concerned: its bytes name the owner.
pub fn certificate(owner: &str) -> DtlsCert {
    DtlsCert { certificate: format!("toy certificate of {owner}").into_bytes(), private_key: Vec::new() }
}

impl DtlsProvider for ToyProvider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        Some(certificate("somebody"))
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        _version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        Ok(Box::new(Toy {
            certificate: certificate.certificate.clone(),
            state: State::Idle,
            session: 0,
            active: false,
            flight: CLIENT_HELLO,
            flight_due: None,
            now,
            output: VecDeque::new(),
        }))
    }
}

#[derive(Debug)]
struct Toy {
    certificate: Vec<u8>,
    state: State,
    session: u64,
    active: bool,
    /// What the client sends next, or again, and when.
    flight: u8,
    flight_due: Option<Instant>,
    now: Instant,
    output: VecDeque<Out>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Idle,
    Up,
    Closing,
}

#[derive(Debug)]
enum Out {
    Packet(Vec<u8>),
    Connected,
    Certificate(Vec<u8>),
    Keys,
    Data(Vec<u8>),
    Closed,
}

impl Toy {
    /// A flight: record type, 0xfe, 0xfd, which one, the session's number, the sender's certificate.
    fn flight(&self, which: u8) -> Out {
        let number = self.session.to_be_bytes();
        Out::Packet([&[HANDSHAKE, 0xfe, 0xfd, which], &number[..], &self.certificate].concat())
    }

    fn keys(&self) -> KeyingMaterial {
        let mut state = self.session.wrapping_mul(0x0D71_5000_0D71_5001);
        let mut bytes = [0; KEYING_MATERIAL];
        for byte in &mut bytes {
            let (next, value) = split_mix(state);
            state = next;
            *byte = value as u8;
        }
        KeyingMaterial::new(&bytes)
    }

    fn handle_flight(&mut self, packet: &[u8]) {
        let Some((&[_, _, _, which], rest)) = packet.split_first_chunk::<4>() else { return };
        let Some((number, certificate)) = rest.split_first_chunk::<8>() else { return };
        let number = u64::from_be_bytes(*number);
        match (self.active, which) {
            (false, CLIENT_HELLO) if self.state == State::Idle => {
                self.session = number;
                let answer = self.flight(SERVER_HELLO);
                self.output.push_back(answer);
            }
            (false, CLIENT_FINISHED) if number == self.session => {
                let answer = self.flight(SERVER_FINISHED);
                self.output.push_back(answer);
                self.finish(certificate);
            }
            (true, SERVER_HELLO) if number == self.session && self.flight == CLIENT_HELLO => {
                self.flight = CLIENT_FINISHED;
                self.flight_due = Some(self.now);
            }
            (true, SERVER_FINISHED) if number == self.session => self.finish(certificate),
            _ => {}
        }
    }

    fn finish(&mut self, certificate: &[u8]) {
        if self.state == State::Idle {
            self.state = State::Up;
            self.flight_due = None;
            self.output.extend([Out::Connected, Out::Certificate(certificate.to_vec()), Out::Keys]);
        }
    }
}

impl DtlsInstance for Toy {
    fn set_active(&mut self, active: bool) {
        self.active = active;
        if active {
            self.session = SESSIONS.get() + 1;
            SESSIONS.set(self.session);
            self.flight_due = Some(self.now);
        }
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        match packet.first() {
            Some(&HANDSHAKE) => self.handle_flight(packet),
            Some(&DATA) if self.state == State::Up => self.output.push_back(Out::Data(packet[1..].to_vec())),
            Some(&CLOSE) if self.state == State::Up => self.output.push_back(Out::Closed),
            _ => {}
        }
        Ok(())
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        let Some(out) = self.output.pop_front() else {
            return DtlsOutput::Timeout(self.flight_due.unwrap_or(self.now + Duration::from_secs(3600)));
        };
        let length = match &out {
            Out::Packet(bytes) | Out::Certificate(bytes) | Out::Data(bytes) => bytes.len(),
            Out::Connected | Out::Keys | Out::Closed => 0,
        };
        if length > buffer.len() {
            self.output.push_front(out);
            return DtlsOutput::BufferTooSmall { needed: length };
        }
        let mut put = |bytes: Vec<u8>| buffer[..length].copy_from_slice(&bytes);
        match out {
            Out::Connected => DtlsOutput::Connected,
            Out::Keys => DtlsOutput::KeyingMaterial(self.keys(), SrtpProfile::AEAD_AES_128_GCM),
            Out::Closed => DtlsOutput::CloseNotify,
            Out::Packet(bytes) => {
                put(bytes);
                DtlsOutput::Packet(&buffer[..length])
            }
            Out::Certificate(bytes) => {
                put(bytes);
                DtlsOutput::PeerCert(&buffer[..length])
            }
            Out::Data(bytes) => {
                put(bytes);
                DtlsOutput::ApplicationData(&buffer[..length])
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.now = now;
        if self.flight_due.is_some_and(|due| due <= now) {
            let flight = self.flight(self.flight);
            self.output.push_back(flight);
            self.flight_due = Some(now + FLIGHT_INTERVAL);
        }
        Ok(())
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        match self.state {
            State::Idle => Ok(0),
            State::Up => {
                self.output.push_back(Out::Packet([&[DATA], data].concat()));
                Ok(data.len())
            }
            State::Closing => Err(DtlsImplError::ConnectionClosed),
        }
    }

    fn is_active(&self) -> bool {
        self.active
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        None
    }

    fn is_closing(&self) -> bool {
        self.state == State::Closing
    }

    fn is_closed(&self) -> bool {
        self.state == State::Closing && self.output.is_empty()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        if self.state == State::Up {
            self.output.push_back(Out::Packet([&[CLOSE, 0xfe, 0xfd], &[0; RECORD_BYTES - 3][..]].concat()));
        }
        self.flight_due = None;
        self.state = State::Closing;
        Ok(())
    }
}

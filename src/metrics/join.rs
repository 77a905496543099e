//! How joins end.

/// How a join ended; each join counts once, when that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinResult {
    /// Media connected.
    Connected,
    /// Admitted, but ICE or DTLS did not finish in time.
    ConnectTimeout,
    /// Admitted, but ended by someone before media connected.
    Abandoned,
    Unauthorized,
    Forbidden,
    RoomNotFound,
    RoomFull,
    QuotaExceeded,
    /// An offer that cannot be read or accepted.
    InvalidOffer,
    /// Any other fault of the request.
    InvalidRequest,
    Unavailable,
    Internal,
}

impl JoinResult {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Connected,
        Self::ConnectTimeout,
        Self::Abandoned,
        Self::Unauthorized,
        Self::Forbidden,
        Self::RoomNotFound,
        Self::RoomFull,
        Self::QuotaExceeded,
        Self::InvalidOffer,
        Self::InvalidRequest,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The value of the metric's `result` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::ConnectTimeout => "connect_timeout",
            Self::Abandoned => "abandoned",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::RoomNotFound => "room_not_found",
            Self::RoomFull => "room_full",
            Self::QuotaExceeded => "quota_exceeded",
            Self::InvalidOffer => "invalid_offer",
            Self::InvalidRequest => "invalid_request",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

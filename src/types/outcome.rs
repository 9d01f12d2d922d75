//! Owns the one table of error names and close codes (PROTOCOL, "Errors" and "Close codes"). Documents, metrics and clients
//! derive from it. Never carries request data.

macro_rules! error_table {
    ($($variant:ident = $code:literal $name:literal $temporary:literal $text:literal;)+) => {
        /// A stable error name of the protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorName { $(#[doc = $text] $variant,)+ }

        impl ErrorName {
            /// Every name, in the order of the table.
            pub const ALL: &'static [ErrorName] = &[$(ErrorName::$variant,)+];

            /// The code, which follows HTTP.
            pub fn code(self) -> u16 {
                match self { $(ErrorName::$variant => $code,)+ }
            }

            /// The exact name on the wire.
            pub fn name(self) -> &'static str {
                match self { $(ErrorName::$variant => $name,)+ }
            }

            /// True when the same request may succeed later.
            pub fn temporary(self) -> bool {
                match self { $(ErrorName::$variant => $temporary,)+ }
            }

            /// What it means, for documents and as the default message.
            pub fn text(self) -> &'static str {
                match self { $(ErrorName::$variant => $text,)+ }
            }

            /// Position in [`ErrorName::ALL`], for counters.
            pub fn index(self) -> usize {
                self as usize
            }
        }
    };
}

error_table! {
    BadJson = 400 "BAD_JSON" false "the text is not JSON, or is nested deeper than 64";
    BadRequest = 400 "BAD_REQUEST" false "a member is missing, of the wrong type or out of range";
    UnknownMessageType = 400 "UNKNOWN_MESSAGE_TYPE" false "this type is not known";
    UnsupportedData = 400 "UNSUPPORTED_DATA" false "this kind of data is not accepted here";
    Unauthenticated = 401 "UNAUTHENTICATED" false "authenticate first";
    BadToken = 401 "BAD_TOKEN" false "the token is not valid";
    TokenExpired = 401 "TOKEN_EXPIRED" false "the token has expired";
    TokenRevoked = 401 "TOKEN_REVOKED" false "the token has been revoked";
    Forbidden = 403 "FORBIDDEN" false "not allowed";
    NotAMember = 403 "NOT_A_MEMBER" false "you are not a member of this conversation";
    RecallWindowPassed = 403 "RECALL_WINDOW_PASSED" false "the message is too old to recall";
    NoSuchGroup = 404 "NO_SUCH_GROUP" false "there is no such group";
    NoSuchMessage = 404 "NO_SUCH_MESSAGE" false "there is no such message";
    AlreadyExists = 409 "ALREADY_EXISTS" false "it exists already";
    AlreadyAuthenticated = 409 "ALREADY_AUTHENTICATED" false "this connection is authenticated";
    TooLarge = 413 "TOO_LARGE" false "the content is too large";
    RateLimited = 429 "RATE_LIMITED" true "too many requests";
    Internal = 500 "INTERNAL" true "the server failed to handle this request";
    Overloaded = 503 "OVERLOADED" true "the server is busy";
    StoreUnavailable = 503 "STORE_UNAVAILABLE" true "the store cannot take this now";
    Draining = 503 "DRAINING" true "this server is shutting down";
}

macro_rules! close_table {
    ($($variant:ident = $code:literal $name:literal;)+) => {
        /// Why a connection is closed by the server.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum CloseCode { $($variant,)+ }

        impl CloseCode {
            /// Every code, in the order of the table.
            pub const ALL: &'static [CloseCode] = &[$(CloseCode::$variant,)+];

            /// The number in the close frame (RFC 6455 section 7.4; 4000 and up are ours, with retry advice by band).
            pub fn code(self) -> u16 {
                match self { $(CloseCode::$variant => $code,)+ }
            }

            /// The name: default reason text and metric label.
            pub fn name(self) -> &'static str {
                match self { $(CloseCode::$variant => $name,)+ }
            }

            /// Position in [`CloseCode::ALL`], for counters.
            pub fn index(self) -> usize {
                self as usize
            }
        }
    };
}

close_table! {
    Normal = 1000 "normal";
    GoingAway = 1001 "going_away";
    Protocol = 1002 "protocol";
    WrongFrameType = 1003 "wrong_frame_type";
    BadUtf8 = 1007 "bad_utf8";
    TooLarge = 1009 "too_large";
    Internal = 1011 "internal";
    BadRequest = 4000 "bad_request";
    Unauthorized = 4001 "unauthorized";
    Forbidden = 4003 "forbidden";
    ConnectionLimit = 4004 "connection_limit";
    TokenRevoked = 4009 "token_revoked";
    Replaced = 4010 "replaced";
    Kicked = 4011 "kicked";
    Overloaded = 4100 "overloaded";
    RateLimited = 4101 "rate_limited";
    Reconnect = 4200 "reconnect";
    NoPongOrAck = 4201 "no_pong_or_ack";
    Shutdown = 4202 "shutdown";
    Rebalance = 4203 "rebalance";
    TokenExpired = 4204 "token_expired";
}

/// An error reply before it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub name: ErrorName,
    /// What exactly is wrong and what to change; the table's text when empty.
    pub message: std::borrow::Cow<'static, str>,
    /// For temporary errors: when to try again, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl Fault {
    pub fn new(name: ErrorName, message: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
        Fault { name, message: message.into(), retry_after_ms: None }
    }

    pub fn retry(name: ErrorName, message: impl Into<std::borrow::Cow<'static, str>>, retry_after_ms: u64) -> Fault {
        Fault { name, message: message.into(), retry_after_ms: Some(retry_after_ms) }
    }
}

impl From<ErrorName> for Fault {
    fn from(name: ErrorName) -> Fault {
        Fault::new(name, name.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_are_unique() {
        let mut names: Vec<_> = ErrorName::ALL.iter().map(|name| name.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorName::ALL.len());
        let mut codes: Vec<_> = CloseCode::ALL.iter().map(|code| code.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CloseCode::ALL.len());
        assert!(ErrorName::ALL.iter().enumerate().all(|(at, name)| name.index() == at));
    }
}

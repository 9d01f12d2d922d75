//! Owns the options that are one of a few words, each as an enum. Never a word that the program does not act on.

use super::value::{Kind, Raw, Value};

macro_rules! choice {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// As it is written.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)*
                }
            }
        }

        impl Value for $name {
            const KIND: Kind = Kind::Choice(&[$($text),*]);

            fn read(raw: &Raw) -> Option<$name> {
                let text = match raw {
                    Raw::Boolean(value) => if *value { "true" } else { "false" },
                    other => other.as_text()?,
                };
                match text {
                    $($text => Some($name::$variant),)*
                    _ => None,
                }
            }

            fn write(&self) -> String {
                format!("{:?}", self.as_str())
            }
        }
    )*};
}

choice! {
    /// Whether shards are bound to cores.
    Pin {
        /// Only when there are no more shards than cores.
        Auto = "auto",
        On = "true",
        Off = "false",
    }

    /// How a token may be signed.
    Algorithm {
        Hs256 = "HS256",
        Rs256 = "RS256",
        Es256 = "ES256",
        EdDsa = "EdDSA",
    }

    /// What to do with one session too many of a user.
    SessionPolicy {
        EvictOldest = "evict_oldest",
        Reject = "reject",
        ReplaceDevice = "replace_device",
    }

    /// What a new member of a group may read.
    GroupHistory {
        /// From the join on.
        Join = "join",
        All = "all",
    }

    /// Who sees whether a user is online.
    PresenceVisible {
        Everyone = "everyone",
        /// Who shares a conversation.
        Contacts = "contacts",
    }

    /// Where messages are kept.
    StoreKind {
        /// Nowhere but in memory: gone when the process ends.
        Memory = "memory",
        /// In the data folder.
        Embedded = "embedded",
    }

    /// What an acknowledgement promises.
    Durability {
        /// The message is on disk.
        Commit = "commit",
        /// The message was accepted; a crash may lose the last moments.
        Memory = "memory",
    }

    LogFormat {
        Text = "text",
        Json = "json",
    }

    LogLevel {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }
}

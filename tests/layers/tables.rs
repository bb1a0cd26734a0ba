//! The layers of crates that have such a table, and the circles that are allowed.

/// The layers of a crate, from the bottom up.
pub(crate) struct Layers {
    /// The crate's folder.
    pub(crate) folder: &'static str,
    /// Entries are paths below `src`: a module with everything below it, or, with `.rs`, one file alone. Entries of one layer
    /// do not import each other.
    pub(crate) layers: &'static [&'static [&'static str]],
}

/// An import that closes a circle, and why it may.
#[derive(PartialEq)]
pub(crate) struct Pair {
    pub(crate) folder: &'static str,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) reason: &'static str,
}

pub(crate) const LAYERS: &[Layers] = &[
    Layers {
        folder: "crates/certstore",
        layers: &[
            &["actor", "admission", "blocking", "clock", "config", "metrics", "migrate", "refusal", "visibility"],
            &["audit_note", "documents", "records"],
            &["guards"],
            &["vault"],
            &["audit", "events", "lookups"],
            &["domain/backup", "domain/bundles", "domain/challenges", "domain/edges", "domain/presence", "domain/put"],
            &["domain/inventory", "domain/restore", "domain/rotation", "domain/sweep"],
            &["domain/ring"],
            &["domain.rs"],
            &["feed"],
            &["snapshot"],
            &["http/request", "http/service"],
            &["http/answer", "http/caller"],
            &["http/accounting", "http/record"],
            &[
                "http/audit", "http/backup", "http/bundles", "http/challenges", "http/documents", "http/edges",
                "http/feed", "http/rotations",
            ],
            &["http/operations"],
            &["http/openapi"],
            &["http/router"],
            &["http.rs"],
            &["lib"],
            &["main"],
        ],
    },
    Layers {
        folder: "crates/certman",
        layers: &[
            &[
                "answers", "config", "drive", "events", "expiry", "indexes", "leases", "metrics", "new_key",
                "presented", "repeats", "signatures", "suffixes", "web",
            ],
            &["dns_challenges", "queue", "stapling", "warm_up"],
            &["preflight"],
            &["authority", "journal"],
            &["ledger", "on_demand", "recent", "webhooks", "witness"],
            &["certstore"],
            &["accounts"],
            &["checkpoint", "worker"],
            &["api/request"],
            &[
                "api/accounts", "api/budget", "api/bulk", "api/events", "api/import", "api/names", "api/on_demand",
                "api/orders", "api/revocation", "api/sites",
            ],
            &["api/openapi"],
            &["api.rs"],
            &["lib"],
            &["main"],
        ],
    },
    Layers {
        folder: "crates/archive",
        layers: &[
            &["audit/chain", "audit/mark", "audit/search", "backup/copy_error", "lines"],
            &["audit/log_error", "backup/damage"],
            &["error"],
            &["audit/files", "audit/pages", "unfinished_file"],
            &["audit/export", "audit/verify", "backup/format"],
            &["backup/changes", "backup/verify"],
            &["backup/create", "backup/restore"],
            &["audit.rs", "backup.rs"],
            &["lib"],
        ],
    },
    Layers {
        folder: "crates/ceremonies",
        layers: &[
            &["cores", "files", "sealed_pages", "site_bundle", "tls_key"],
            &["error"],
            &["export", "import/folder", "legacy", "migration/pace", "onboarding/list", "pki", "ring_memory"],
            &[
                "import/source",
                "onboarding/import",
                "migration/appoint",
                "migration/plan",
                "migration/remaining",
                "migration/reseal",
                "ring_client",
                "rotation/edges",
                "rotation/genuine",
                "rotation/pool_query",
                "rotation/ring_steps",
            ],
            &["import.rs", "keys", "migration/status", "onboarding.rs"],
            &[
                "issuers", "migration.rs", "rotation/decisions", "rotation/plan", "rotation/retire", "rotation/rewrap",
                "rotation/verify",
            ],
            &["rotation/run"],
            &["rotation.rs"],
            &["lib"],
        ],
    },
    Layers {
        folder: "crates/certctl",
        layers: &[
            &["failure", "values"],
            &["output", "settings"],
            &["progress_bar"],
            &["nouns/keys/key_place", "nouns/keys/ring_text"],
            &["nouns/keys/generate", "nouns/keys/issuers", "nouns/keys/rotation_text", "nouns/onboard"],
            &["nouns/site_import"],
            &["nouns/keys/rotate"],
            &[
                "nouns/account", "nouns/audit", "nouns/backup", "nouns/budget", "nouns/bundle", "nouns/dns",
                "nouns/drill", "nouns/edges", "nouns/event", "nouns/export", "nouns/import", "nouns/keys.rs",
                "nouns/migrate", "nouns/order", "nouns/pki", "nouns/plan", "nouns/site",
            ],
            &["nouns.rs"],
            &["command_line"],
            &["lib"],
            &["main"],
        ],
    },
    Layers {
        folder: "crates/certedge",
        layers: &[
            &["upstream/endpoints", "upstream/networks"],
            &["config"],
            &[
                "acme", "demand/gate", "exchange/admission", "exchange/choose", "exchange/headers", "exchange/host",
                "keys", "tls", "upstream.rs",
            ],
            &["demand/line", "exchange/answer", "exchange/upload", "metrics"],
            &["demand.rs", "exchange/plain", "report"],
            &["exchange.rs"],
            &["listen"],
            &["lib"],
            &["main"],
        ],
    },
];

/// Circles that are allowed, each with its reason: a trait beside its one type, say. A pair that closes none any more fails
/// the test.
pub(crate) const ALLOWED: &[Pair] = &[];

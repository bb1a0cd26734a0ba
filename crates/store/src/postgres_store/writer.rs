//! Group commit: queued requests are sent as one database transaction.
//!
//! ```text
//!  BEGIN; lock the row of `meta`    everybody who writes waits here, so groups follow each other
//!  read versions                    of all touched keys, in one query
//!  (work the group out in memory)
//!  write the net effect             records, feed, audit; own row of `writers`; `meta`
//!  COMMIT                           returns once it is as durable as the server's replication says
//! ```
//!
//! Each group takes effect once. A group that fails before COMMIT is sent has changed nothing, since the server ends
//! the transaction of a lost connection, and it is worked out anew. When a reply to COMMIT fails to come, the group's
//! number in the writer's own row tells: the group's transaction has written it, and holds a lock on that row until it
//! has ended. So a query for the number waits for a commit that is still under way on an old connection, and its answer
//! is final; on another server, after a failover, the old connection can acknowledge nothing any more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    PostgresOptions,
    failure::{FIRST_PAUSE, Fault, next_pause},
    meta::{self, WriterId},
    session::{Connector, Session},
    shared::Shared,
    statements,
};
use crate::{
    StoreError,
    queue::{Answer, Request, Work, transactions},
};

/// The only thing in this process that changes the database.
pub(super) struct Writer {
    pub(super) connector: Arc<Connector>,
    pub(super) shared: Arc<Shared>,
    pub(super) id: WriterId,
    pub(super) give_up: Duration,
    /// How long a commit may take before it is asked after on another connection. A server that hangs keeps its
    /// connections, and may have been replaced long ago; one that waits for its replicas is asked in vain until then.
    pub(super) doubt_after: Duration,
    session: Option<Session>,
    /// The number of the newest group.
    group: i64,
}

/// A group that was not acknowledged.
enum Unacknowledged {
    /// It changed nothing.
    Undone(Fault),
    /// COMMIT was sent. The answers are for the case that it turns out to be committed.
    InDoubt(Vec<Answer>, Fault),
}

impl From<Fault> for Unacknowledged {
    fn from(fault: Fault) -> Self {
        Self::Undone(fault)
    }
}

impl Writer {
    pub(super) fn new(connector: Arc<Connector>, shared: Arc<Shared>, id: WriterId, options: &PostgresOptions) -> Self {
        let (give_up, doubt_after) = (options.give_up, options.statement_timeout);
        Self { connector, shared, id, give_up, doubt_after, session: None, group: 0 }
    }

    /// Each transaction's own outcome, or the same error for all.
    pub(super) async fn acknowledged(&mut self, group: &[Request]) -> Vec<Answer> {
        self.group += 1;
        let (started, mut pause) = (Instant::now(), FIRST_PAUSE);
        let mut doubtful = None;
        loop {
            let left = self.give_up.saturating_sub(started.elapsed());
            let tried = match doubtful.take() {
                None => self.attempt(group, left).await,
                Some(answers) => self.settle(answers, left).await,
            };
            let fault = match tried {
                Ok(Some(answers)) => {
                    self.shared.in_contact();
                    return answers;
                }
                // It is certain now that it was not committed: once more, at once.
                Ok(None) => continue,
                Err(Unacknowledged::Undone(fault)) => fault,
                Err(Unacknowledged::InDoubt(answers, fault)) => {
                    doubtful = Some(answers);
                    fault
                }
            };
            self.session = None;
            // A doubtful group is asked after even when the fault itself would last.
            let hopeless = !fault.passing && doubtful.is_none();
            if hopeless || started.elapsed() + pause >= self.give_up {
                let in_doubt = Fault { passing: fault.passing || doubtful.is_some(), ..fault };
                let error = in_doubt.given_up(started.elapsed());
                self.shared.out_of_contact(&error);
                return vec![Err(error); group.len()];
            }
            tracing::warn!(error = %fault.error, in_doubt = doubtful.is_some(), "a group of writes is tried again");
            tokio::time::sleep(pause).await;
            pause = next_pause(pause);
        }
    }

    async fn attempt(&mut self, group: &[Request], left: Duration) -> Result<Option<Vec<Answer>>, Unacknowledged> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            self.session = Some(self.connector.connect().await?);
        }
        let Some(session) = &self.session else { return Ok(None) };
        let before = self.shared.proven();
        let begin = begin(left);
        // Sent together, in this order.
        let ((), state) = tokio::try_join!(biased; session.run("begin", &begin), meta::lock(session))?;
        self.shared.check(before, state.position)?;

        let (answers, reached) = match group {
            [Request { work: Work::DropAudit(through), .. }] => {
                let dropped = statements::drop_audit(session, *through, state).await?;
                meta::note_group(session, self.id, self.group).await?;
                meta::store(session, &dropped).await?;
                (vec![Ok(dropped.position)], dropped.position)
            }
            _ => {
                let mut loaded = statements::load(session, state, transactions(group)).await?;
                let answers = transactions(group).map(|one| loaded.apply(one)).collect();
                statements::store(session, &loaded, self.id, self.group).await?;
                (answers, loaded.state.position)
            }
        };
        match session.commit(left.min(self.doubt_after)).await {
            Ok(()) => {
                self.shared.prove(reached);
                Ok(Some(answers))
            }
            // The server's word that it has rolled back; everything else may have happened after the commit.
            Err(fault) if rolled_back(&fault) => Err(Unacknowledged::Undone(fault)),
            Err(fault) => Err(Unacknowledged::InDoubt(answers, fault)),
        }
    }

    /// Finds out what became of the group: its answers, none if it has to be sent again.
    async fn settle(&mut self, answers: Vec<Answer>, left: Duration) -> Result<Option<Vec<Answer>>, Unacknowledged> {
        let settled = async {
            let session = self.connector.connect().await?;
            let last = meta::last_group(&session, self.id, left.min(self.doubt_after)).await?;
            Ok((session, last))
        };
        match settled.await {
            Err(fault) => Err(Unacknowledged::InDoubt(answers, fault)),
            Ok((session, last)) if last < self.group => {
                self.session = Some(session);
                Ok(None)
            }
            Ok((session, _)) => {
                self.session = Some(session);
                if let Some(Ok(reached)) = answers.iter().rev().find(|answer| answer.is_ok()) {
                    self.shared.prove(*reached);
                }
                Ok(Some(answers))
            }
        }
    }
}

/// A process that hangs in the middle must not keep the others from the locked row; one that waits must not wait for
/// longer than its callers do.
fn begin(left: Duration) -> String {
    let patience = left.as_millis().max(1);
    format!(
        "{}; SET LOCAL lock_timeout = {patience}; SET LOCAL idle_in_transaction_session_timeout = {}",
        meta::BEGIN,
        IDLE_LIMIT.as_millis()
    )
}

/// serialization_failure and deadlock_detected.
fn rolled_back(fault: &Fault) -> bool {
    match &fault.error {
        StoreError::Database { cause, .. } => cause.contains("SQLSTATE 40001") || cause.contains("SQLSTATE 40P01"),
        _ => false,
    }
}

/// How long a writer may hold the locked row without a word.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

//! The queue of the one thread that writes, for every backend: requests, and how they are gathered into groups.

use std::{
    sync::mpsc::{self, Receiver, SyncSender},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{Done, Position, StoreError, Transaction};

pub(crate) type Answer = Result<Position, StoreError>;

/// Something to do, and who hears of its outcome.
pub(crate) struct Request {
    pub(crate) work: Work,
    done: Done,
}

pub(crate) enum Work {
    Apply(Transaction),
    /// Drops the entries of the audit log up to this number.
    DropAudit(u64),
}

impl Request {
    /// The caller may have gone; its commit stays.
    pub(crate) fn answer(self, answer: Answer) {
        (self.done)(answer);
    }

    fn transaction(&self) -> Option<&Transaction> {
        match &self.work {
            Work::Apply(transaction) => Some(transaction),
            Work::DropAudit(_) => None,
        }
    }
}

/// The requests that share one commit: transactions, or one request of another sort.
pub(crate) type Group = Vec<Request>;

/// The transactions of a group.
pub(crate) fn transactions(group: &[Request]) -> impl Iterator<Item = &Transaction> + Clone {
    group.iter().filter_map(Request::transaction)
}

/// The way to the writer. Dropping it finishes what is queued.
pub(crate) struct Queue {
    requests: Option<SyncSender<Request>>,
    writer: Option<JoinHandle<()>>,
}

impl Queue {
    /// Starts the thread that takes groups and answers them.
    pub(crate) fn start(
        mut commit: impl FnMut(&[Request]) -> Vec<Answer> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (requests, waiting) = mpsc::sync_channel(QUEUE_LENGTH);
        let run = move || {
            let (mut held, mut is_busy) = (None, false);
            while let Some(first) = held.take().or_else(|| waiting.recv().ok()) {
                if is_busy {
                    thread::sleep(GATHERING);
                }
                let (group, next) = gathered(first, &waiting);
                (held, is_busy) = (next, group.len() > 1);
                let answers = commit(&group);
                group.into_iter().zip(answers).for_each(|(request, answer)| request.answer(answer));
            }
        };
        let writer = thread::Builder::new().name("store-writer".to_owned()).spawn(run);
        let writer = writer.map_err(StoreError::io("start", "the writer of the store"))?;
        Ok(Self { requests: Some(requests), writer: Some(writer) })
    }

    /// Queues the work; waits when too much is queued already.
    pub(crate) fn submit(&self, work: Work, done: Done) {
        let request = Request { work, done };
        match &self.requests {
            Some(requests) => {
                if let Err(mpsc::SendError(request)) = requests.send(request) {
                    request.answer(Err(writer_gone()));
                }
            }
            None => request.answer(Err(writer_gone())),
        }
    }

    /// Queues the work, and waits for its outcome.
    pub(crate) fn ask(&self, work: Work) -> Answer {
        waited(|done| self.submit(work, done))
    }

    /// An error once the writer has ended although the store did not: it panicked.
    pub(crate) fn healthy(&self) -> Result<(), StoreError> {
        if self.writer.as_ref().is_none_or(JoinHandle::is_finished) { Err(writer_gone()) } else { Ok(()) }
    }
}

impl Queue {
    /// Ends the writer, once it has done what is queued.
    pub(crate) fn finish(&mut self) {
        drop(self.requests.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer thread of the store had panicked");
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Waits for the outcome of what is submitted.
pub(crate) fn waited(submit: impl FnOnce(Done)) -> Answer {
    let (reply, answer) = mpsc::sync_channel(1);
    // Nobody leaves before the answer.
    submit(Box::new(move |outcome| drop(reply.send(outcome))));
    answer.recv().unwrap_or_else(|_| Err(writer_gone()))
}

fn writer_gone() -> StoreError {
    StoreError::Failed { cause: "the writer thread ended".to_owned() }
}

/// The requests that go together with `first`: those that wait already, up to the limits. One that did not fit comes
/// first next time.
fn gathered(first: Request, waiting: &Receiver<Request>) -> (Group, Option<Request>) {
    let mut bytes = first.transaction().map(Transaction::bytes);
    let mut group = vec![first];
    while group.len() < MAX_GROUP_LENGTH
        && let Some(before) = bytes
        && let Ok(next) = waiting.try_recv()
    {
        bytes = next.transaction().map(|next| before + next.bytes()).filter(|bytes| *bytes <= MAX_GROUP_BYTES);
        if bytes.is_none() {
            return (group, Some(next));
        }
        group.push(next);
    }
    (group, None)
}

/// How long more is waited for while several ask at one time: one commit for many costs little more than one for few, and
/// whoever asks alone does not wait.
const GATHERING: Duration = Duration::from_millis(1);

/// Transactions that may wait for the writer; further commits wait for a place among them.
const QUEUE_LENGTH: usize = 256;

/// The most transactions that share one commit.
const MAX_GROUP_LENGTH: usize = 256;

/// The most bytes that share one commit, so that nobody else waits long for it.
const MAX_GROUP_BYTES: usize = 8 << 20;

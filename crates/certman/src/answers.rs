//! Answers to questions about names, by servers of others: remembered for a while, and asked for once when several want to know.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use certseal_service::shares::{Share, Shares};
use certseal_wire::DnsName;
use tokio::sync::watch;

/// An answer to a question about a name.
pub(crate) trait Answer: Clone + Send + Sync + 'static {
    /// The answer where a question broke off.
    fn none() -> Self;
}

/// The answers that are known.
pub(crate) struct Answers<A> {
    /// How long an answer counts.
    lasts: Box<dyn Fn(&A) -> Duration + Send + Sync>,
    state: Mutex<State<A>>,
    /// Of the questions under way, by registered domain.
    domains: Shares<String>,
}

struct State<A> {
    known: Known<A>,
    under_way: HashMap<DnsName, watch::Receiver<Option<A>>>,
}

impl<A: Answer> Answers<A> {
    /// Each answer counts as long as `lasts` says.
    pub(crate) fn new(lasts: impl Fn(&A) -> Duration + Send + Sync + 'static) -> Arc<Self> {
        let state = State { known: Known(HashMap::new()), under_way: HashMap::new() };
        Arc::new(Self { lasts: Box::new(lasts), state: Mutex::new(state), domains: Shares::default() })
    }

    /// The answer about a name of a registered domain: what is remembered, or what `ask` finds out, also when whoever wanted to know
    /// goes away. None while too many questions are under way, of the domain or in all.
    pub(crate) async fn of<F>(
        self: &Arc<Self>,
        name: &DnsName,
        domain: String,
        ask: impl FnOnce() -> F + Send,
    ) -> Option<A>
    where
        F: Future<Output = A> + Send + 'static,
    {
        let mut answer = match self.begin(name, domain, Instant::now()) {
            Begun::Known(answer) => return Some(answer),
            Begun::TooMany => return None,
            Begun::ByAnother(answer) => answer,
            Begun::Here(share, sender, answer) => {
                let under_way = UnderWay { of: self.clone(), name: name.clone(), _share: share };
                tokio::spawn(under_way.answer(ask(), sender));
                answer
            }
        };
        // A question that broke off says nothing.
        let answer = answer.wait_for(Option::is_some).await.ok().and_then(|answer| (*answer).clone());
        Some(answer.unwrap_or_else(A::none))
    }

    fn begin(&self, name: &DnsName, domain: String, now: Instant) -> Begun<A> {
        let mut state = self.state();
        if let Some(answer) = state.known.of(name, now) {
            return Begun::Known(answer);
        }
        if let Some(answer) = state.under_way.get(name) {
            return Begun::ByAnother(answer.clone());
        }
        if state.under_way.len() >= MOST_UNDER_WAY {
            return Begun::TooMany;
        }
        let Some(share) = self.domains.take(domain, 1, MOST_OF_A_DOMAIN) else { return Begun::TooMany };
        let (sender, answer) = watch::channel(None);
        state.under_way.insert(name.clone(), answer.clone());
        Begun::Here(share, sender, answer)
    }

    fn state(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a question begins.
enum Begun<A> {
    Known(A),
    ByAnother(watch::Receiver<Option<A>>),
    Here(Share<String>, watch::Sender<Option<A>>, watch::Receiver<Option<A>>),
    TooMany,
}

/// A question, until it has its answer or breaks off.
struct UnderWay<A: Answer> {
    of: Arc<Answers<A>>,
    name: DnsName,
    _share: Share<String>,
}

impl<A: Answer> UnderWay<A> {
    async fn answer(self, asked: impl Future<Output = A>, sender: watch::Sender<Option<A>>) {
        let answer = asked.await;
        let now = Instant::now();
        let until = now + (self.of.lasts)(&answer);
        self.of.state().known.note(self.name.clone(), answer.clone(), until, now);
        drop(self);
        // Everybody who waited may have gone.
        let _ = sender.send(Some(answer));
    }
}

impl<A: Answer> Drop for UnderWay<A> {
    fn drop(&mut self) {
        self.of.state().under_way.remove(&self.name);
    }
}

/// Answers, each until an instant.
struct Known<A>(HashMap<DnsName, (A, Instant)>);

impl<A: Clone> Known<A> {
    fn of(&self, name: &DnsName, now: Instant) -> Option<A> {
        self.0.get(name).filter(|(_, until)| *until > now).map(|(answer, _)| answer.clone())
    }

    fn note(&mut self, name: DnsName, answer: A, until: Instant, now: Instant) {
        if self.0.len() >= MOST_KNOWN {
            self.0.retain(|_, (_, until)| *until > now);
        }
        if self.0.len() >= MOST_KNOWN {
            // Names are asked about again then, which is bounded by other means.
            self.0.clear();
        }
        self.0.insert(name, (answer, until));
    }
}

/// For how long nobody who does not answer is asked about the same name again.
pub(crate) const UNAVAILABLE_FOR: Duration = Duration::from_secs(5);
const MOST_KNOWN: usize = 100_000;
/// Names that are asked about at one time, and those of one registered domain: its servers may answer slowly.
const MOST_UNDER_WAY: usize = 64;
const MOST_OF_A_DOMAIN: u64 = 4;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::{sync::Semaphore, task::JoinSet};

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Said {
        Yes,
        No,
        Nothing,
    }

    impl Answer for Said {
        fn none() -> Self {
            Self::Nothing
        }
    }

    fn name(number: usize) -> DnsName {
        format!("shop-{number}.example.com").parse().unwrap()
    }

    /// Each name is of a domain of its own.
    fn domain(number: usize) -> String {
        format!("{number}.example")
    }

    async fn breaks_off() -> Said {
        panic!("a look breaks off")
    }

    #[test]
    fn an_answer_counts_until_its_time_is_over_and_very_many_are_not_kept() {
        let (mut known, now) = (Known(HashMap::new()), Instant::now());
        let until = now + Duration::from_secs(10);
        known.note(name(0), Said::No, until, now);
        assert_eq!(known.of(&name(0), until - Duration::from_millis(1)), Some(Said::No));
        assert_eq!(known.of(&name(0), until), None);
        assert_eq!(known.of(&name(1), now), None);
        for number in 0..3 * MOST_KNOWN / 2 {
            known.note(name(number), Said::No, until, now);
            assert!(known.0.len() <= MOST_KNOWN);
        }
    }

    #[tokio::test]
    async fn a_name_that_many_ask_about_is_looked_at_once() {
        let answers = Answers::<Said>::new(|_| Duration::from_secs(300));
        let (asked, answer) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
        let mut all = JoinSet::new();
        for _ in 0..100 {
            let (answers, asked, answer) = (answers.clone(), asked.clone(), answer.clone());
            all.spawn(async move {
                let look = || async move {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let _permit = answer.acquire().await;
                    Said::No
                };
                answers.of(&name(1), domain(1), look).await
            });
        }
        while asked.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        // One that goes away does not take the answer with it.
        let one = name(1);
        let first = answers.of(&one, domain(1), || async { Said::Yes });
        assert!(tokio::time::timeout(Duration::from_millis(50), first).await.is_err());
        answer.add_permits(1);
        assert!(all.join_all().await.into_iter().all(|answer| answer == Some(Said::No)));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let again = answers.of(&name(1), domain(1), || async { Said::Yes }).await;
        assert_eq!(again, Some(Said::No), "it is remembered");
        let other = answers.of(&name(2), domain(2), || async { Said::Yes }).await;
        assert_eq!(other, Some(Said::Yes));
    }

    #[tokio::test]
    async fn questions_under_way_are_bounded_and_one_that_breaks_off_leaves_nothing_behind() {
        let answers = Answers::<Said>::new(|_| Duration::from_secs(300));
        let answer = Arc::new(Semaphore::new(0));
        let mut all = JoinSet::new();
        for number in 0..MOST_UNDER_WAY {
            let (answers, answer) = (answers.clone(), answer.clone());
            all.spawn(async move {
                let look = || async move {
                    let _permit = answer.acquire().await;
                    Said::Yes
                };
                answers.of(&name(number), domain(number), look).await
            });
        }
        while answers.state().under_way.len() < MOST_UNDER_WAY {
            tokio::task::yield_now().await;
        }
        let one_more = answers.of(&name(1000), domain(1000), || async { Said::Yes }).await;
        assert_eq!(one_more, None);
        answer.add_permits(1);
        assert!(all.join_all().await.into_iter().all(|answer| answer == Some(Said::Yes)));
        let broken = answers.of(&name(1000), domain(1000), breaks_off).await;
        assert_eq!(broken, Some(Said::Nothing));
        assert!(answers.state().under_way.is_empty());
    }

    #[tokio::test]
    async fn a_domain_whose_servers_are_slow_leaves_questions_to_others() {
        let answers = Answers::<Said>::new(|_| Duration::from_secs(300));
        let answer = Arc::new(Semaphore::new(0));
        let mut slow = JoinSet::new();
        for number in 0..MOST_OF_A_DOMAIN as usize {
            let (answers, answer) = (answers.clone(), answer.clone());
            slow.spawn(async move {
                let look = || async move {
                    let _permit = answer.acquire().await;
                    Said::Yes
                };
                answers.of(&name(number), domain(0), look).await
            });
        }
        while answers.state().under_way.len() < MOST_OF_A_DOMAIN as usize {
            tokio::task::yield_now().await;
        }
        let ask = async |number, domain| answers.of(&name(number), domain, || async { Said::Yes }).await;
        assert_eq!(ask(1000, domain(0)).await, None);
        assert_eq!(ask(1001, domain(1)).await, Some(Said::Yes));
        answer.add_permits(1);
        assert!(slow.join_all().await.into_iter().all(|answer| answer == Some(Said::Yes)));
        assert_eq!(ask(1000, domain(0)).await, Some(Said::Yes), "its part is free again");
    }
}

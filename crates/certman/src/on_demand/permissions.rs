//! What the rules said of names: remembered for a while, and asked for once when several want to know.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use certseal_service::shares::{Share, Shares};
use certseal_wire::DnsName;
use tokio::sync::watch;

/// Whether there may be a certificate for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permission {
    Permitted,
    Refused,
    /// Nobody who could have said so was reached.
    Unavailable,
}

/// The permissions of names.
pub(crate) struct Permissions {
    /// How long a refusal counts.
    refused_for: Duration,
    state: Mutex<State>,
    /// Of the questions under way, by registered domain.
    domains: Shares<String>,
}

#[derive(Default)]
struct State {
    known: Known,
    under_way: HashMap<DnsName, watch::Receiver<Option<Permission>>>,
}

impl Permissions {
    pub(crate) fn new(refused_for: Duration) -> Arc<Self> {
        Arc::new(Self { refused_for, state: Mutex::default(), domains: Shares::default() })
    }

    /// The permission of a name of a registered domain: what is remembered, or what `ask` finds out, also when whoever wanted to know
    /// goes away. None while too many questions are under way, of the domain or in all.
    pub(crate) async fn of<F>(
        self: &Arc<Self>,
        name: &DnsName,
        domain: String,
        ask: impl FnOnce() -> F + Send,
    ) -> Option<Permission>
    where
        F: Future<Output = Permission> + Send + 'static,
    {
        let mut answer = match self.begin(name, domain, Instant::now()) {
            Begun::Known(permission) => return Some(permission),
            Begun::TooMany => return None,
            Begun::ByAnother(answer) => answer,
            Begun::Here(share, sender, answer) => {
                let under_way = UnderWay { of: self.clone(), name: name.clone(), _share: share };
                tokio::spawn(under_way.answer(ask(), sender));
                answer
            }
        };
        // A question that broke off says nothing.
        let permission = answer.wait_for(Option::is_some).await.ok().and_then(|answer| *answer);
        Some(permission.unwrap_or(Permission::Unavailable))
    }

    fn begin(&self, name: &DnsName, domain: String, now: Instant) -> Begun {
        let mut state = self.state();
        if let Some(permission) = state.known.of(name, now) {
            return Begun::Known(permission);
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

    fn remembered_for(&self, permission: Permission) -> Duration {
        match permission {
            Permission::Permitted => PERMITTED_FOR,
            Permission::Refused => self.refused_for,
            Permission::Unavailable => UNAVAILABLE_FOR,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a question begins.
enum Begun {
    Known(Permission),
    ByAnother(watch::Receiver<Option<Permission>>),
    Here(Share<String>, watch::Sender<Option<Permission>>, watch::Receiver<Option<Permission>>),
    TooMany,
}

/// A question, until it has its answer or breaks off.
struct UnderWay {
    of: Arc<Permissions>,
    name: DnsName,
    _share: Share<String>,
}

impl UnderWay {
    async fn answer(self, asked: impl Future<Output = Permission>, sender: watch::Sender<Option<Permission>>) {
        let permission = asked.await;
        let now = Instant::now();
        let until = now + self.of.remembered_for(permission);
        self.of.state().known.note(self.name.clone(), permission, until, now);
        drop(self);
        // Everybody who waited may have gone.
        let _ = sender.send(Some(permission));
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.of.state().under_way.remove(&self.name);
    }
}

/// Answers, each until an instant.
#[derive(Default)]
struct Known(HashMap<DnsName, (Permission, Instant)>);

impl Known {
    fn of(&self, name: &DnsName, now: Instant) -> Option<Permission> {
        self.0.get(name).filter(|(_, until)| *until > now).map(|(permission, _)| *permission)
    }

    fn note(&mut self, name: DnsName, permission: Permission, until: Instant, now: Instant) {
        if self.0.len() >= MOST_KNOWN {
            self.0.retain(|_, (_, until)| *until > now);
        }
        if self.0.len() >= MOST_KNOWN {
            // Names are asked about again then, which is bounded by other means.
            self.0.clear();
        }
        self.0.insert(name, (permission, until));
    }
}

/// How long a name stays permitted: until its site is there.
const PERMITTED_FOR: Duration = Duration::from_secs(60);
/// For how long nobody who does not answer is asked about the same name again.
const UNAVAILABLE_FOR: Duration = Duration::from_secs(5);
const MOST_KNOWN: usize = 100_000;
/// Names that are asked about at one time, and those of one registered domain: its servers may answer slowly.
const MOST_UNDER_WAY: usize = 64;
const MOST_OF_A_DOMAIN: u64 = 4;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::{sync::Semaphore, task::JoinSet};

    use super::*;

    fn name(number: usize) -> DnsName {
        format!("shop-{number}.example.com").parse().unwrap()
    }

    /// Each name is of a domain of its own.
    fn domain(number: usize) -> String {
        format!("{number}.example")
    }

    async fn breaks_off() -> Permission {
        panic!("a look breaks off")
    }

    #[test]
    fn an_answer_counts_until_its_time_is_over_and_very_many_are_not_kept() {
        let (mut known, now) = (Known::default(), Instant::now());
        let until = now + Duration::from_secs(10);
        known.note(name(0), Permission::Refused, until, now);
        assert_eq!(known.of(&name(0), until - Duration::from_millis(1)), Some(Permission::Refused));
        assert_eq!(known.of(&name(0), until), None);
        assert_eq!(known.of(&name(1), now), None);
        for number in 0..3 * MOST_KNOWN / 2 {
            known.note(name(number), Permission::Refused, until, now);
            assert!(known.0.len() <= MOST_KNOWN);
        }
    }

    #[tokio::test]
    async fn a_name_that_many_ask_about_is_looked_at_once() {
        let permissions = Permissions::new(Duration::from_secs(300));
        let (asked, answer) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
        let mut all = JoinSet::new();
        for _ in 0..100 {
            let (permissions, asked, answer) = (permissions.clone(), asked.clone(), answer.clone());
            all.spawn(async move {
                let look = || async move {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let _permit = answer.acquire().await;
                    Permission::Refused
                };
                permissions.of(&name(1), domain(1), look).await
            });
        }
        while asked.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        // One that goes away does not take the answer with it.
        let one = name(1);
        let first = permissions.of(&one, domain(1), || async { Permission::Permitted });
        assert!(tokio::time::timeout(Duration::from_millis(50), first).await.is_err());
        answer.add_permits(1);
        assert!(all.join_all().await.into_iter().all(|answer| answer == Some(Permission::Refused)));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let again = permissions.of(&name(1), domain(1), || async { Permission::Permitted }).await;
        assert_eq!(again, Some(Permission::Refused), "it is remembered");
        let other = permissions.of(&name(2), domain(2), || async { Permission::Permitted }).await;
        assert_eq!(other, Some(Permission::Permitted));
    }

    #[tokio::test]
    async fn questions_under_way_are_bounded_and_one_that_breaks_off_leaves_nothing_behind() {
        let permissions = Permissions::new(Duration::from_secs(300));
        let answer = Arc::new(Semaphore::new(0));
        let mut all = JoinSet::new();
        for number in 0..MOST_UNDER_WAY {
            let (permissions, answer) = (permissions.clone(), answer.clone());
            all.spawn(async move {
                let look = || async move {
                    let _permit = answer.acquire().await;
                    Permission::Permitted
                };
                permissions.of(&name(number), domain(number), look).await
            });
        }
        while permissions.state().under_way.len() < MOST_UNDER_WAY {
            tokio::task::yield_now().await;
        }
        let one_more = permissions.of(&name(1000), domain(1000), || async { Permission::Permitted }).await;
        assert_eq!(one_more, None);
        answer.add_permits(1);
        assert!(all.join_all().await.into_iter().all(|answer| answer == Some(Permission::Permitted)));
        let broken = permissions.of(&name(1000), domain(1000), breaks_off).await;
        assert_eq!(broken, Some(Permission::Unavailable));
        assert!(permissions.state().under_way.is_empty());
    }

    #[tokio::test]
    async fn a_domain_whose_servers_are_slow_leaves_questions_to_others() {
        let permissions = Permissions::new(Duration::from_secs(300));
        let answer = Arc::new(Semaphore::new(0));
        let mut slow = JoinSet::new();
        for number in 0..MOST_OF_A_DOMAIN as usize {
            let (permissions, answer) = (permissions.clone(), answer.clone());
            slow.spawn(async move {
                let look = || async move {
                    let _permit = answer.acquire().await;
                    Permission::Permitted
                };
                permissions.of(&name(number), domain(0), look).await
            });
        }
        while permissions.state().under_way.len() < MOST_OF_A_DOMAIN as usize {
            tokio::task::yield_now().await;
        }
        let ask =
            async |number, domain| permissions.of(&name(number), domain, || async { Permission::Permitted }).await;
        assert_eq!(ask(1000, domain(0)).await, None);
        assert_eq!(ask(1001, domain(1)).await, Some(Permission::Permitted));
        answer.add_permits(1);
        assert!(slow.join_all().await.into_iter().all(|answer| answer == Some(Permission::Permitted)));
        assert_eq!(ask(1000, domain(0)).await, Some(Permission::Permitted), "its part is free again");
    }
}

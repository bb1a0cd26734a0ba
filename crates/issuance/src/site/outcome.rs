//! What becomes of a site by the outcome of an action or a booking.

use certseal_wire::{DnsName, NamesReport, Readiness};
use jiff::Timestamp;

use crate::{
    Action, Advice, Attempt, Booked, Booking, Failure, FailureKind, Issued, Lineage, Look, Looked, Moment, OrderReport,
    OrderState, Outcome, Policy, Site, Stapling, Step, Wait, Work, budget::Reserved, renewal, stapling,
};

impl Site {
    /// The site after an action.
    pub fn after(mut self, action: &Action, outcome: Outcome, moment: Moment, policy: &Policy) -> Self {
        match outcome {
            Outcome::RouteStored => {
                self.attempts.route = Attempt::default();
                Self { route_stored: true, left: Vec::new(), ..self }
            }
            Outcome::Revoked(revoked) => {
                self.revoke.retain(|other| *other != revoked);
                self.attempts.revocation = Attempt::default();
                self
            }
            Outcome::Deactivated(order) => {
                self.abandoned.retain(|other| *other != order);
                self.attempts.cleanup = Attempt::default();
                self
            }
            Outcome::Retracted => {
                self.attempts.cleanup = Attempt::default();
                Self { published: Vec::new(), ..self }
            }
            Outcome::Confirmed(stored) => {
                // The key was sealed and forgotten, so that it takes a new one.
                let is_gone = self.certificate.is_some() && stored < self.bundle_version.max(1);
                self.order = (is_gone && self.issuer_left).then_some(Step::Requested);
                self.attempts.confirmation = Attempt::default();
                let lost = is_gone && !self.issuer_left;
                Self { unconfirmed: false, issuer_left: false, lost, ..self }
            }
            Outcome::ReorderTaken => {
                self.attempts.confirmation = Attempt::default();
                Self { lost: false, order: Some(Step::Requested), ..self }
            }
            Outcome::Stored { authority, id, not_before, not_after, responder } => {
                self.stored(authority, id, not_before, not_after, moment).answered_by(responder)
            }
            Outcome::Advised { window, retry_after, explanation } => {
                let certificate = self.certificate.as_mut();
                certificate.into_iter().for_each(|it| it.advised(window, retry_after, explanation.clone(), moment));
                self
            }
            Outcome::NotAdvised => {
                self.certificate.as_mut().into_iter().for_each(|certificate| certificate.advice.ask_at = None);
                self
            }
            Outcome::Stapled { version, this_update, next_update } => {
                self.attempts.staple = Attempt::default();
                let fetch_at = Some(stapling::refreshed_at(this_update, next_update, moment));
                Self { staple: Some(Stapling { responder: true, version, fetch_at }), ..self }
            }
            Outcome::NoResponder => self.answered_by(false),
            Outcome::NamesAre(report) => self.looked_at(report, moment),
            Outcome::Failed(failure) => self.failed(action.work(), failure, moment, policy),
            outcome => {
                // A renewal begins with its first action.
                let step = self.order.take().unwrap_or(Step::Requested);
                self.moved(step, outcome, moment, policy)
            }
        }
    }

    /// The site after a look at its names: an order waits until they are ready, and one that the CA rejected is tried again
    /// once somebody has mended them.
    pub fn looked_at(mut self, report: NamesReport, moment: Moment) -> Self {
        let before = self.looked.take();
        let mut looked = Looked::new(report, before.as_ref(), moment.now);
        let again_at = looked.pause(moment);
        let is_mended = looked.readiness == Readiness::Ready && before.is_some_and(|before| before.was_bad);
        let is_asked_for = self.order.is_some() || self.is_to_be_renewed(moment.now);
        let begins = self.begins() && is_asked_for && !self.is_urgent(moment.now);
        let order = &mut self.attempts.order;
        if order.rejected == 0 {
            looked.woken = 0;
        }
        let waits = order.retry_at.is_some_and(|at| at > moment.now);
        match order.wait {
            // An order under way, an urgent one, and one that nobody wants: the look is noted.
            _ if !begins || order.dead => {}
            Wait::Rejected if waits && looked.may_wake() => {
                if is_mended {
                    order.retry_at = None;
                    looked.woken += 1;
                } else if looked.readiness != Readiness::Ready {
                    // Where nothing is seen, nothing will be seen to be mended.
                    looked.again_at = again_at;
                }
            }
            // It waits for the CA, which no look makes quicker.
            Wait::Rejected | Wait::Other if waits => {}
            _ if looked.is_not_ready() => order.held_back(again_at, looked.summary()),
            _ => order.released(),
        }
        Self { looked: Some(looked), ..self }
    }

    /// The site after a booking.
    pub fn booked(mut self, booking: &Booking, booked: Booked) -> Self {
        match (booking, booked) {
            (Booking::Reserve { account, .. }, Booked::Reserved(reserved)) => {
                // What was reserved for the certificate of an order that is placed again is reserved still.
                let certificate = self.reserved.take().map_or(reserved.certificate, |before| before.certificate);
                let order = &mut self.attempts.order;
                order.retry_at = None;
                order.diagnosis = order.diagnosis.take().filter(|_| order.failures() > 0);
                self.reserved = Some(Reserved { ready: true, order: reserved.order, certificate });
                self.account = Some(account.clone());
            }
            (Booking::Reserve { .. }, Booked::Delayed(delay)) => self.attempts.order.delayed(&delay),
            (Booking::Settle { settlement, .. }, Booked::Settled) => {
                self.owed.without(settlement);
                self.attempts.cleanup = Attempt::default();
            }
            _ => {}
        }
        self
    }

    /// The order moves on. An outcome that does not belong to the step moves nothing.
    fn moved(mut self, step: Step, outcome: Outcome, moment: Moment, policy: &Policy) -> Self {
        // A first authorization is no success of the whole: the ladder of retries goes on until the CA is ready.
        self.attempts.order.retry_at = None;
        let now = moment.now;
        let next = match (step, outcome) {
            (Step::Requested, Outcome::AccountReady(account)) => match account.thumbprint {
                Some(_) => Step::AccountReady { account },
                None => Step::Vouched { account },
            },
            (Step::AccountReady { account }, Outcome::Vouched) => Step::Vouched { account },
            (Step::Vouched { .. }, Outcome::OrderOpened(order)) => {
                if let Some(reserved) = &mut self.reserved {
                    reserved.placed();
                }
                self.attempts.order.unavailable = 0;
                Step::Authorizing { order }
            }
            (Step::Authorizing { order }, Outcome::ChallengesKnown(answers)) => {
                self.attempts.order.unavailable = 0;
                if answers.is_empty() {
                    // Should the CA see it otherwise, it says so to the request.
                    self.attempts.order.progressed();
                    Step::Authorized { order }
                } else {
                    Step::ChallengesKnown { order, answers }
                }
            }
            (Step::ChallengesKnown { order, answers }, Outcome::Published) => Step::Published { order, answers },
            (Step::Published { order, answers }, Outcome::ValidationBegun { retry_after }) => {
                Step::ChallengePending { order, answers, look: Look::soon(now, retry_after) }
            }
            (
                Step::ChallengePending { order, answers, look },
                Outcome::OrderIs(OrderReport { state: OrderState::Pending, retry_after }),
            ) => match look.again(now, retry_after) {
                Some(look) => Step::ChallengePending { order, answers, look },
                None => {
                    // certstore may have lost the answers, or the CA our word.
                    self.order = Some(Step::ChallengesKnown { order, answers });
                    return self.late("the CA has not finished its validation yet", moment, policy);
                }
            },
            (Step::ChallengePending { order, answers, .. }, Outcome::OrderIs(_)) => {
                self.published.extend(answers);
                self.attempts.order.progressed();
                self.owed.validated.append(&mut self.failing);
                Step::Authorized { order }
            }
            (Step::Authorized { order }, Outcome::KeySealed(sealed)) => Step::Finalizing { order, sealed },
            (Step::KeySealed { order, sealed }, Outcome::OrderIs(OrderReport { state, retry_after })) => match state {
                OrderState::Ready => Step::Finalizing { order, sealed },
                OrderState::Pending => Step::Authorizing { order },
                OrderState::Processing => Step::Retrieving { order, sealed, look: Look::soon(now, retry_after) },
                OrderState::Valid => Step::Downloading { order, sealed },
            },
            // No end of the ladder of retries yet: a CA may take the same request again and again.
            (Step::Finalizing { order, sealed }, Outcome::OrderIs(OrderReport { state, retry_after })) => match state {
                OrderState::Valid => Step::Downloading { order, sealed },
                // One that is called ready took the request, and does not show it yet.
                _ => Step::Retrieving { order, sealed, look: Look::soon(now, retry_after) },
            },
            (Step::Retrieving { order, sealed, look }, Outcome::OrderIs(OrderReport { state, retry_after })) => {
                match (state, look.again(now, retry_after)) {
                    (OrderState::Valid, _) => Step::Downloading { order, sealed },
                    (OrderState::Ready, _) => {
                        self.order = Some(Step::Finalizing { order, sealed });
                        return self.late("the CA took the request, and waits for it again", moment, policy);
                    }
                    (_, Some(look)) => Step::Retrieving { order, sealed, look },
                    (_, None) => {
                        self.order = Some(Step::Retrieving { order, sealed, look: Look::first(now) });
                        return self.late("the CA has not signed the certificate yet", moment, policy);
                    }
                }
            }
            (Step::Downloading { order, sealed }, Outcome::Certificate(chain)) => match chain {
                Some(chain) => {
                    self.attempts.order.progressed();
                    Step::Issued { sealed, chain, authority: order.authority().cloned() }
                }
                None => Step::Retrieving { order, sealed, look: Look::soon(now, None) },
            },
            (step, _) => step,
        };
        Self { order: Some(next), ..self }
    }

    fn stored(
        mut self,
        authority: String,
        id: Option<String>,
        not_before: Timestamp,
        not_after: Timestamp,
        moment: Moment,
    ) -> Self {
        let (enveloped, ordered_from) = match self.order.take() {
            Some(Step::Issued { sealed, authority, .. }) => (sealed.enveloped, authority),
            _ => (false, None),
        };
        let is_same = |before: &Issued| before.not_after == not_after && before.authority == authority;
        let certificate = match self.certificate.take().filter(is_same) {
            // The certificate is the one from before, under another seal: that changes nothing about its end.
            Some(before) => before,
            None => {
                let renew_at = renewal::first(not_before, not_after, moment.now, moment.chance);
                let account = self.account.clone().filter(|account| Some(&account.authority) == ordered_from.as_ref());
                let lineage = id.zip(account).map(|(id, account)| Lineage { account, id, is_replaced: false });
                let advice = match &lineage {
                    Some(_) => Advice::unasked(moment.now, renew_at, moment.chance),
                    None => Advice::default(),
                };
                Issued {
                    authority,
                    ordered_from,
                    names: Some(self.names.clone()),
                    not_before: Some(not_before),
                    not_after,
                    renew_at,
                    lineage,
                    advice,
                    is_put_forward: false,
                }
            }
        };
        self.bundle_version = self.bundle_version.saturating_add(1);
        self.enveloped |= enveloped;
        let version = self.bundle_version;
        let replaced = self.compromised.take_if(|compromised| compromised.version < version);
        self.revoke.extend(replaced.map(|compromised| compromised.certificate));
        self.attempts.order = Attempt::default();
        self.attempts.confirmation = Attempt::default();
        // What was reserved is used.
        Self { certificate: Some(certificate), order: None, reserved: None, lost: false, ..self }
    }

    /// The site with a certificate that names a responder, or none. A certificate that was brought along names whom its bringer
    /// likes: only those of CAs that certman orders from have it call somebody.
    fn answered_by(mut self, responder: bool) -> Self {
        let is_ordered = self.certificate.as_ref().is_some_and(|certificate| certificate.ordered_from.is_some());
        self.attempts.staple = Attempt::default();
        Self { staple: Stapling::of_stored(self.staple.take(), responder && is_ordered), ..self }
    }

    fn late(self, detail: &str, moment: Moment, policy: &Policy) -> Self {
        self.failed(Work::Order, Failure::new(FailureKind::Unavailable, detail), moment, policy)
    }

    fn failed(mut self, work: Work, failure: Failure, moment: Moment, policy: &Policy) -> Self {
        let mut failure = failure;
        self.count_failed(&failure.names);
        match (work, failure.kind) {
            // That nobody could look is no reason to wait.
            (Work::Names, _) => return self.looked_at(NamesReport::new(moment.now, Vec::new()), moment),
            // The renewal has its time without advice, too.
            (Work::Advice, _) => {
                let certificate = self.certificate.as_mut();
                certificate.into_iter().for_each(|it| it.advice.ask_after_error(moment.now, moment.chance));
                return self;
            }
            // Whatever it is, the certificate is good without an answer.
            (Work::Staple, kind) => {
                if let (FailureKind::Outrun(version), Some(staple)) = (kind, &mut self.staple) {
                    staple.version = staple.version.max(version);
                }
                self.attempts.staple.put_off(failure, moment);
                return self;
            }
            (Work::Order, FailureKind::AlreadyReplaced) => {
                let lineage = self.certificate.as_mut().and_then(|certificate| certificate.lineage.as_mut());
                if let Some(lineage) = lineage.filter(|lineage| !lineage.is_replaced) {
                    lineage.is_replaced = true;
                    // As no replacement it costs something else.
                    self.give_back();
                    return self;
                }
                // Of an order that said to replace nothing.
                self.begin_anew();
            }
            (Work::Route, FailureKind::Outrun(version)) => {
                self.route_version = self.route_version.max(version).saturating_add(1);
            }
            (Work::Order, FailureKind::Outrun(version)) => {
                // The version is sealed into the key, so it takes a new one.
                self.bundle_version = self.bundle_version.max(version);
                self.begin_anew();
            }
            (Work::Order, FailureKind::Rejected | FailureKind::Hopeless) => {
                if policy.looks_first {
                    let looked = self.looked.get_or_insert_with(|| Looked::unknown(moment.now));
                    looked.again_at = looked.pause(moment);
                }
                failure = self.name_hosts(failure);
                self.begin_anew();
            }
            (Work::Order, kind) if self.should_move(policy) => {
                // The request may have come to it all the same.
                if let Some(reserved) = self.reserved.as_mut().filter(|_| kind == FailureKind::Unanswered) {
                    reserved.placed();
                }
                self.begin_anew();
                // The other CA has failed nothing.
                self.attempts.order.unavailable = 0;
            }
            (Work::Order, kind) => {
                // The request may have come to the CA all the same.
                self.order = self.order.map(Step::resumed);
                if let Some(reserved) = self.reserved.as_mut().filter(|_| kind == FailureKind::Unanswered) {
                    reserved.placed();
                }
            }
            _ => {}
        }
        self.attempts.of_mut(work).failed(failure, moment, policy);
        self
    }

    /// Failed validations take from the CA's budget, too.
    fn count_failed(&mut self, names: &[DnsName]) {
        // A CA may name others, or one of them a thousand times.
        let failed: Vec<DnsName> = self.names.iter().filter(|own| names.contains(own)).cloned().collect();
        self.failing.retain(|name| self.names.iter().any(|own| own == name) && !failed.contains(name));
        self.failing.extend_from_slice(&failed);
        self.owed.failed.extend(failed);
        let account = self.order.as_ref().and_then(Step::order).and_then(|order| order.account.clone());
        self.account = account.or(self.account.take());
    }

    /// A failed validation that names no host is of one of those that were under validation.
    fn name_hosts(&self, failure: Failure) -> Failure {
        let answers = self.order.as_ref().map(Step::published).unwrap_or_default();
        if answers.is_empty() || answers.iter().any(|answer| failure.detail.contains(answer.host.as_str())) {
            return failure;
        }
        let hosts: Vec<_> = answers.iter().map(|answer| answer.host.to_string()).collect();
        let detail = format!("{} (names: {})", failure.detail, hosts.join(", "));
        Failure { names: failure.names, ..Failure::new(failure.kind, detail) }
    }
}

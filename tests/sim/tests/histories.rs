//! A fixed set of histories, and every seed that found a mistake.

use lockstep_sim::{Plan, run};

/// Acts of a history.
const EVENTS: usize = 200;

fn holds(seed: u64, events: usize) {
    let outcome = run(&Plan::draw(seed, events));
    let violation = outcome.violation.as_deref();
    assert!(
        violation.is_none(),
        "seed {seed}: {violation:?}\n{}\nagain: sim --seed {seed} --events {events}",
        outcome.log
    );
    assert!(outcome.counts.writes > 0 && outcome.counts.commits > 0, "seed {seed} met nothing");
}

#[test]
fn the_same_seed_gives_the_same_history_byte_by_byte() {
    for seed in [3, 42] {
        let [first, second] = [(); 2].map(|()| run(&Plan::draw(seed, 60)));
        assert_eq!(first.log, second.log);
        assert_eq!(first.counts, second.counts);
    }
}

#[test]
fn a_fixed_set_of_histories_violates_nothing() {
    (1_000..1_008).for_each(|seed| holds(seed, 100));
}

/// Everything happens to one or two copies (`closeup.rs`).
#[test]
fn a_fixed_set_of_close_ups_violates_nothing() {
    (60_001..60_017).step_by(2).for_each(|seed| holds(seed, EVENTS));
}

/// Of several lives under one name the agent told the end of the last only, and the hub kept the first.
#[test]
fn seed_4_names_that_live_twice_while_the_hub_is_away() {
    holds(4, EVENTS);
}

/// A copy that lost its marks became a source.
#[test]
fn seed_5_a_copy_without_marks_is_no_source() {
    holds(5, EVENTS);
}

/// A copy came and went while the watch was silent: nobody told the hub, and no census was made.
#[test]
fn seed_8_a_copy_that_the_watch_never_saw() {
    holds(8, EVENTS);
}

/// Its agent was away; the delete was replayed before the end of its namespace.
#[test]
fn seed_14_a_delete_that_is_told_before_the_end_of_its_namespace() {
    holds(14, EVENTS);
}

/// What a restore had lost was overwritten by our own write, without a tombstone.
#[test]
fn seed_34_a_lost_state_under_a_name_that_is_written_again() {
    holds(34, EVENTS);
}

/// A create of unknown outcome whose copy lost its marks became a source.
#[test]
fn seeds_370_and_382_a_copy_without_marks_and_record_is_no_source() {
    holds(370, EVENTS);
    holds(382, EVENTS);
}

/// What had been replaced was read again and again until the watch told of it.
#[test]
fn seed_534_what_was_replaced_is_not_read_in_a_loop() {
    holds(534, EVENTS);
}

/// An agent was killed before it could take back what its create had done to an object of another.
#[test]
fn seed_471_marks_that_a_create_left_on_what_it_met_mean_nothing() {
    holds(471, EVENTS);
}

/// Two restores of one snapshot within seconds, the second of which left no trace.
#[test]
fn seed_1415_what_a_step_finds_to_be_gone_is_looked_at() {
    holds(1415, EVENTS);
}

/// What an undo put back looked as if a create had met it.
#[test]
fn seed_685_what_was_put_back_is_known_by_its_marks() {
    holds(685, EVENTS);
}

/// A namespace lived and ended in a gap; the end of what was inside came from another watch.
#[test]
fn seed_2443_every_end_of_a_namespace_is_told() {
    holds(2443, EVENTS);
}

/// A hub that was killed expected the echo of its last write; a silent watch never brought it.
#[test]
fn seed_1956_what_was_written_is_expected_to_be_told_after_a_restart_of_the_hub() {
    holds(1956, EVENTS);
}

/// The answers to two creates of one copy were lost, and the record named the one that a user had deleted.
#[test]
fn seed_2706_a_copy_made_again_is_ours_however_many_answers_are_lost() {
    holds(2706, EVENTS);
}

/// The hub's clock had been ahead when a rewind was noted, and accepting it accepted nothing.
#[test]
fn seed_3060_a_rewind_is_accepted_although_the_clock_was_set_back() {
    holds(3060, EVENTS);
}

/// A watch told of marks that a create had left on what it met, long after they had been taken back.
#[test]
fn seed_4141_marks_that_were_taken_back_mean_nothing() {
    holds(4141, EVENTS);
}

/// Another hub made an object in the same second as our create, whose answer was lost.
#[test]
fn seed_3276_what_a_create_met_is_told_by_what_was_there_before() {
    holds(3276, EVENTS);
}

/// While its policy was away for a moment, so was the watch of namespaces that would have told of their end.
#[test]
fn seed_20471_namespaces_stay_watched_while_what_is_in_them_is() {
    holds(20_471, EVENTS);
}

/// The create for a source's successor met what the one for the source had made.
#[test]
fn seed_20645_what_an_earlier_create_made_is_ours() {
    holds(20_645, EVENTS);
}

/// A look at a namespace before it was deleted again counted as one after that, since the hub's clock had been ahead.
#[test]
fn seed_22547_a_look_at_a_namespace_counts_for_what_went_before_it() {
    holds(22_547, EVENTS);
}

/// After a restore a state from before it came late, and the list that lacked it named another.
#[test]
fn seed_23126_what_comes_late_from_before_a_restore_is_missing_too() {
    holds(23_126, EVENTS);
}

/// The answer to an apply was so long under way that the watch had told of the object's end, and of its successor.
#[test]
fn seed_30359_an_answer_that_comes_late_tells_nothing() {
    holds(30_359, EVENTS);
}

/// A merge was taken back, the answer that said so was lost, and the source went before the hub heard of the merge.
#[test]
fn seed_30959_what_only_marks_called_a_copy_is_none_without_them() {
    holds(30_959, EVENTS);
}

/// A copy that only its marks had made known again lost them to a user, and then its source.
#[test]
fn seed_20631_a_copy_that_lost_its_marks_is_told_by_our_fields() {
    holds(20_631, EVENTS);
}

/// What we wrote went again in a gap of the watch, and hub and agent ended before it was asked for.
#[test]
fn seed_22771_what_no_watch_told_of_is_asked_for_however_often_somebody_ends() {
    holds(22_771, EVENTS);
}

/// The hub's data was lost, and the namespace went before the hub had heard of it again.
#[test]
fn seed_27057_what_is_older_than_its_namespace_went_with_an_earlier_one() {
    holds(27_057, EVENTS);
}

/// The create had no answer yet when its copy and its source were made anew.
#[test]
fn seed_27435_a_create_without_an_answer_keeps_its_nonce() {
    holds(27_435, EVENTS);
}

/// Nobody might list at the target when a create met an object of another hub there, and then its source went.
#[test]
fn seed_42939_what_a_create_met_is_taken_back_before_it_is_forgotten() {
    holds(42_939, EVENTS);
}

/// The agent was killed when its create had met an object of others, and a person approved what the source had left.
#[test]
fn seed_26227_an_approval_deletes_nothing_that_a_create_met() {
    holds(26_227, EVENTS);
}

/// What its namespace took with it before a restore brought the namespace back was told after that.
#[test]
fn seed_26356_a_delete_of_the_history_before_a_restore_is_held() {
    holds(26_356, EVENTS);
}

/// What was written went again in a gap of the watch; it was asked for too late, and then a list began.
#[test]
fn seed_60033_what_a_list_interrupts_is_told_by_it() {
    holds(60_033, EVENTS);
}

/// The clock of a hub that was restored was set back before everything had caught up.
#[test]
fn seed_80008_a_restored_hub_asks_no_clock() {
    holds(80_008, EVENTS);
}

/// A copy was written after the backup that the hub comes back from, and a field of it changed since.
#[test]
fn seed_80200_drift_of_what_was_written_after_a_backup_is_seen() {
    holds(80_200, EVENTS);
}

/// Hub and source cluster were restored, and only the agent knew of the latter.
#[test]
fn seed_80395_a_rewind_is_told_to_a_hub_that_was_restored() {
    holds(80_395, EVENTS);
}

/// Copies were made anew after the backup.
#[test]
fn seed_80494_a_copy_that_was_made_anew_after_a_backup_is_ours() {
    holds(80_494, EVENTS);
}

//! Every kind of bad input that is known to break such servers, by number, with the tests that show what comes of it. A test
//! holds the list to the tests that there are.

use std::path::Path;

/// A number, what it is, and the tests: a file below `tests/behaviour` and a name in it.
type Row = (u8, &'static str, &'static [&'static str]);

#[rustfmt::skip]
const ROWS: [Row; 77] = [
    // Handshake.
    (1, "HTTP: POST, no upgrade", &["bad_inputs/handshake.rs requests_that_are_no_good_upgrade"]),
    (2, "HTTP/1.0, HTTP/2, TLS hello on the plain port", &["bad_inputs/handshake.rs requests_that_are_no_good_upgrade"]),
    (3, "another version of WebSocket", &["bad_inputs/handshake.rs requests_that_are_no_good_upgrade"]),
    (4, "bad keys", &["bad_inputs/handshake.rs requests_that_are_no_good_upgrade"]),
    (5, "bad hosts and header lines", &["bad_inputs/handshake.rs requests_that_are_no_good_upgrade"]),
    (6, "a body with the upgrade", &["bad_inputs/handshake.rs requests_that_are_no_good_upgrade"]),
    (7, "too many or too long header lines, path", &["bad_inputs/handshake.rs requests_that_are_no_good_upgrade"]),
    (8, "a request that never ends", &["bad_inputs/handshake.rs slow_and_silent_requests_are_closed"]),
    (9, "foreign origins", &["bad_inputs/handshake.rs origins_are_compared_exactly"]),
    (10, "no origin; cookies", &[
        "bad_inputs/handshake.rs origins_are_compared_exactly",
        "bad_inputs/handshake.rs cookies_open_nothing",
    ]),
    (11, "unknown subprotocol, a thousand of them", &["bad_inputs/handshake.rs requests_that_are_no_good_upgrade"]),
    (12, "bearer.<token> among the subprotocols", &[
        "auth.rs a_token_in_the_subprotocol_is_never_echoed",
        "bad_inputs/logs.rs tokens_reach_no_log_and_no_metric",
    ]),
    (13, "?token= while off", &[
        "auth.rs the_query_is_no_place_unless_allowed",
        "bad_inputs/logs.rs tokens_reach_no_log_and_no_metric",
    ]),
    (14, "odd and broken extensions", &[
        "bad_inputs/handshake.rs extensions_are_declined",
        "bad_inputs/handshake.rs requests_that_are_no_good_upgrade",
    ]),
    (15, "frames in the packet of the request", &[
        "bad_inputs/handshake.rs frames_in_the_packet_of_the_request_are_taken",
        "bad_inputs/handshake.rs frames_in_that_packet_are_counted_as_those_of_a_stranger",
    ]),
    (16, "over a cap", &[
        "limits.rs an_address_has_a_cap",
        "limits.rs a_node_has_a_cap",
        "limits.rs a_node_accepts_so_many_a_second",
    ]),
    (17, "101, then nothing", &["auth.rs silence_is_closed_after_the_timeout"]),
    // Frames.
    (18, "unmasked", &[
        "bad_inputs/frames.rs faults_close_with_their_code",
        "bad_inputs/frames.rs faults_before_authentication_close_too",
    ]),
    (19, "RSV bits", &[
        "bad_inputs/frames.rs faults_close_with_their_code",
        "bad_inputs/frames.rs faults_before_authentication_close_too",
    ]),
    (20, "reserved opcodes", &[
        "bad_inputs/frames.rs faults_close_with_their_code",
        "bad_inputs/frames.rs faults_before_authentication_close_too",
    ]),
    (21, "bad control frames", &[
        "bad_inputs/frames.rs faults_close_with_their_code",
        "bad_inputs/frames.rs faults_before_authentication_close_too",
    ]),
    (22, "fragments out of order", &[
        "bad_inputs/frames.rs faults_close_with_their_code",
        "bad_inputs/frames.rs faults_before_authentication_close_too",
    ]),
    (23, "bad lengths", &[
        "bad_inputs/frames.rs faults_close_with_their_code",
        "bad_inputs/frames.rs faults_before_authentication_close_too",
    ]),
    (24, "too large, exactly large enough", &[
        "bad_inputs/frames.rs faults_close_with_their_code",
        "bad_inputs/frames.rs what_is_unusual_but_right_is_taken",
    ]),
    (25, "fragments without end", &["bad_inputs/frames.rs many_fragments_without_end_are_cut_off"]),
    (26, "200,000 messages", &["bad_inputs/load.rs many_whole_messages_on_one_connection_are_fine"]),
    (27, "half a frame, then silence", &["bad_inputs/frames.rs half_a_frame_and_then_silence_is_closed"]),
    (28, "a drip of bytes", &["heartbeat.rs bytes_without_a_whole_message_are_no_life"]),
    (29, "bad close frames", &[
        "bad_inputs/frames.rs faults_close_with_their_code",
        "bad_inputs/frames.rs a_close_is_answered_and_ends_it",
    ]),
    (30, "frames after close", &["bad_inputs/frames.rs a_close_is_answered_and_ends_it"]),
    (31, "bad UTF-8", &[
        "bad_inputs/frames.rs faults_close_with_their_code",
        "bad_inputs/frames.rs what_is_unusual_but_right_is_taken",
    ]),
    (32, "binary on JSON; text on Protobuf (which is refused with 400)", &[
        "bad_inputs/frames.rs faults_close_with_their_code",
        "bad_inputs/handshake.rs requests_that_are_no_good_upgrade",
    ]),
    (33, "floods of pings", &[
        "bad_inputs/load.rs ten_times_the_rate_in_pings_ends_in_4101",
        "bad_inputs/frames.rs a_flood_of_pings_grows_nothing",
    ]),
    (34, "unasked pongs", &[
        "bad_inputs/frames.rs what_is_unusual_but_right_is_taken",
        "heartbeat.rs messages_and_unasked_pongs_count_as_life",
    ]),
    (35, "deflate bombs (deflate is not spoken: 1002)", &["bad_inputs/frames.rs faults_close_with_their_code"]),
    (36, "RST and FIN", &["bad_inputs/frames.rs connections_that_break_are_cleaned_up"]),
    // Envelope.
    (37, "no envelope", &["bad_inputs/envelope.rs bad_envelopes_are_answered_by_name"]),
    (38, "100,000 brackets", &["bad_inputs/envelope.rs depth_is_counted_from_the_envelope"]),
    (39, "members twice", &["bad_inputs/envelope.rs bad_envelopes_are_answered_by_name"]),
    (40, "bad types", &["bad_inputs/envelope.rs bad_envelopes_are_answered_by_name"]),
    (41, "bad message_id", &["bad_inputs/envelope.rs bad_envelopes_are_answered_by_name"]),
    (42, "bad seq", &[
        "bad_inputs/envelope.rs bad_envelopes_are_answered_by_name",
        "bad_inputs/envelope.rs bad_members_are_answered_with_the_request_they_belong_to",
    ]),
    (43, "surrogates and NUL", &[
        "bad_inputs/envelope.rs bad_envelopes_are_answered_by_name",
        "bad_inputs/envelope.rs bad_members_are_answered_with_the_request_they_belong_to",
        "private_messages.rs content_may_be_empty_or_strange",
    ]),
    (44, "bad content, content at its limit", &[
        "bad_inputs/envelope.rs bad_members_are_answered_with_the_request_they_belong_to",
        "limits.rs content_has_a_limit_of_its_own",
        "limits.rs a_message_over_the_limit_closes",
    ]),
    (45, "odd timestamps", &["bad_inputs/envelope.rs what_is_strange_but_allowed_is_taken"]),
    (46, "bad msg_type, ext, mentions", &["bad_inputs/envelope.rs bad_members_are_answered_with_the_request_they_belong_to"]),
    (47, "Protobuf (which is refused with 400)", &["bad_inputs/handshake.rs requests_that_are_no_good_upgrade"]),
    // Identity.
    (48, "verbs before auth", &["auth.rs before_authentication_only_auth_and_ping_are_answered"]),
    (49, "second auth, refresh for another", &[
        "auth.rs a_second_auth_changes_nothing",
        "auth.rs a_failed_refresh_changes_nothing",
    ]),
    (50, "alg none, segments", &[
        "bad_inputs/tokens.rs none_of_them_opens",
        "bad_inputs/keys.rs the_type_of_a_key_fixes_the_algorithm",
    ]),
    (51, "confused algorithms", &["bad_inputs/keys.rs the_type_of_a_key_fixes_the_algorithm"]),
    (52, "kid, jku, x5u, jwk, crit", &[
        "bad_inputs/keys.rs the_name_of_a_key_is_a_name_and_nothing_else",
        "bad_inputs/tokens.rs none_of_them_opens",
    ]),
    (53, "bad times", &["bad_inputs/tokens.rs none_of_them_opens"]),
    (54, "aud and iss", &["auth.rs audience_and_issuer_are_checked_when_configured"]),
    (55, "bad and similar subjects", &[
        "bad_inputs/tokens.rs none_of_them_opens",
        "bad_inputs/tokens.rs subjects_that_differ_stay_different",
    ]),
    (56, "huge and odd tokens", &[
        "bad_inputs/tokens.rs a_huge_token_is_refused_before_it_is_decoded",
        "bad_inputs/tokens.rs none_of_them_opens",
        "bad_inputs/handshake.rs a_token_that_cannot_be_one_is_refused_unread",
    ]),
    (57, "expiry, rotation, an issuer that is gone", &[
        "auth.rs an_expired_session_is_told_and_closed",
        "bad_inputs/keys.rs a_file_of_keys_is_read_again_when_it_changes",
        "bad_inputs/keys.rs an_issuer_is_asked_rarely_and_may_go_away",
    ]),
    // Rights and state.
    (58, "what belongs to others", &[
        "bad_inputs/rights.rs what_belongs_to_others_stays_closed",
        "history.rs others_cannot_read_it",
        "groups.rs a_closed_group_does_not_exist_for_strangers",
    ]),
    (59, "recv_ack out of bounds", &[
        "bad_inputs/rights.rs positions_out_of_bounds_skip_nothing",
        "delivery.rs acknowledging_the_future_skips_nothing",
    ]),
    (60, "huge syncs", &[
        "bad_inputs/rights.rs a_sync_of_ten_thousand_conversations_holds_up_nobody",
        "sync.rs cursors_at_or_past_the_end_bring_nothing",
    ]),
    (61, "one message_id, several messages", &["private_messages.rs a_repeat_is_stored_once"]),
    (62, "one message_id on two connections", &["private_messages.rs the_same_id_on_two_connections_at_once_is_stored_once"]),
    (63, "recall and delete of others' messages, mark_read past the end", &[
        "recall.rs only_the_sender_or_a_group_admin_may_recall",
        "recall.rs after_the_window_it_is_too_late",
        "bad_inputs/rights.rs what_belongs_to_others_stays_closed",
        "bad_inputs/rights.rs positions_out_of_bounds_skip_nothing",
    ]),
    (64, "oneself, nobody, odd ids", &[
        "private_messages.rs a_message_to_oneself_reaches_the_other_devices_once",
        "private_messages.rs odd_ids_round_trip",
        "private_messages.rs similar_ids_never_share_a_conversation",
    ]),
    (65, "leave and send in one packet; a kick meanwhile", &[
        "groups.rs leaving_and_sending_in_one_packet_happen_in_order",
        "bad_inputs/rights.rs a_kick_while_sends_are_on_their_way_leaves_no_half",
    ]),
    (66, "limit, before_seq, after_seq", &[
        "history.rs a_limit_is_from_1_and_held_to_200",
        "history.rs bounds_are_exclusive_and_combine",
        "bad_inputs/rights.rs positions_out_of_bounds_skip_nothing",
    ]),
    (67, "odd searches", &["bad_inputs/rights.rs searches_take_words_and_nothing_more"]),
    // Load.
    (68, "ten times the rate", &[
        "bad_inputs/load.rs ten_times_the_rate_ends_in_4101",
        "bad_inputs/load.rs what_follows_a_close_is_not_looked_at",
    ]),
    (69, "readers that do not read", &[
        "slow_reader.rs stalled_readers_cost_no_memory_and_lose_nothing",
        "bad_inputs/load.rs a_client_that_never_reads_is_bounded",
    ]),
    (70, "one session too many", &[
        "sessions.rs the_sixth_connection_evicts_the_oldest",
        "sessions.rs one_too_many_is_turned_away",
        "sessions.rs a_device_replaces_itself",
    ]),
    (71, "floods of connects", &[
        "bad_inputs/load.rs a_flood_of_connects_is_capped",
        "bad_inputs/load.rs connections_that_come_and_go_leave_nothing",
    ]),
    (72, "groups beyond the limits", &["bad_inputs/load.rs groups_beyond_the_limits_are_refused"]),
    // REST and operation.
    (73, "bad API keys", &[
        "control.rs the_key_opens_and_nothing_else_does",
        "bad_inputs/rest.rs keys_that_are_not_the_key",
    ]),
    (74, "odd paths", &[
        "control.rs strange_paths_reach_nothing",
        "bad_inputs/rest.rs identifiers_that_lead_elsewhere",
    ]),
    (75, "endless bodies", &[
        "bad_inputs/rest.rs bodies_without_end",
        "bad_inputs/rest.rs slow_bodies_are_cut_off",
        "bad_inputs/rest.rs bodies_that_are_not_as_described",
        "bad_inputs/rest.rs content_over_its_limit",
    ]),
    (76, "texts that would forge lines or labels", &["bad_inputs/logs.rs what_clients_write_cannot_forge_a_line"]),
    (77, "bad configurations", &["program.rs bad_configurations_are_refused_all_errors_at_once"]),
];

#[test]
fn every_row_has_its_tests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/behaviour");
    for (place, (number, what, tests)) in ROWS.iter().enumerate() {
        assert_eq!(usize::from(*number), place + 1, "{what}: rows stand in order, none is missing");
        assert!(!tests.is_empty(), "row {number}, {what}");
        for test in *tests {
            let (file, name) = test.split_once(' ').unwrap_or_else(|| panic!("{test}: a file and a name"));
            let text = std::fs::read_to_string(folder.join(file)).unwrap_or_else(|fault| panic!("{file}: {fault}"));
            let code: String = text.split_whitespace().collect();
            let there = code.contains(&format!("at_shards!({name},")) || code.contains(&format!("#[test]fn{name}()"));
            assert!(there, "row {number}, {what}: there is no test {name} in {file}");
        }
    }
}

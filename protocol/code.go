package protocol

import "fmt"

// Code is a Kafka error code as it goes over the wire. The names, numbers and what is retriable are those of Apache
// Kafka 4.3.
type Code int16

const (
	CodeUnknownServerError                 Code = -1
	CodeNone                               Code = 0
	CodeOffsetOutOfRange                   Code = 1
	CodeCorruptMessage                     Code = 2
	CodeUnknownTopicOrPartition            Code = 3
	CodeInvalidFetchSize                   Code = 4
	CodeLeaderNotAvailable                 Code = 5
	CodeNotLeaderOrFollower                Code = 6
	CodeRequestTimedOut                    Code = 7
	CodeBrokerNotAvailable                 Code = 8
	CodeReplicaNotAvailable                Code = 9
	CodeMessageTooLarge                    Code = 10
	CodeStaleControllerEpoch               Code = 11
	CodeOffsetMetadataTooLarge             Code = 12
	CodeNetworkException                   Code = 13
	CodeCoordinatorLoadInProgress          Code = 14
	CodeCoordinatorNotAvailable            Code = 15
	CodeNotCoordinator                     Code = 16
	CodeInvalidTopicException              Code = 17
	CodeRecordListTooLarge                 Code = 18
	CodeNotEnoughReplicas                  Code = 19
	CodeNotEnoughReplicasAfterAppend       Code = 20
	CodeInvalidRequiredAcks                Code = 21
	CodeIllegalGeneration                  Code = 22
	CodeInconsistentGroupProtocol          Code = 23
	CodeInvalidGroupID                     Code = 24
	CodeUnknownMemberID                    Code = 25
	CodeInvalidSessionTimeout              Code = 26
	CodeRebalanceInProgress                Code = 27
	CodeInvalidCommitOffsetSize            Code = 28
	CodeTopicAuthorizationFailed           Code = 29
	CodeGroupAuthorizationFailed           Code = 30
	CodeClusterAuthorizationFailed         Code = 31
	CodeInvalidTimestamp                   Code = 32
	CodeUnsupportedSASLMechanism           Code = 33
	CodeIllegalSASLState                   Code = 34
	CodeUnsupportedVersion                 Code = 35
	CodeTopicAlreadyExists                 Code = 36
	CodeInvalidPartitions                  Code = 37
	CodeInvalidReplicationFactor           Code = 38
	CodeInvalidReplicaAssignment           Code = 39
	CodeInvalidConfig                      Code = 40
	CodeNotController                      Code = 41
	CodeInvalidRequest                     Code = 42
	CodeUnsupportedForMessageFormat        Code = 43
	CodePolicyViolation                    Code = 44
	CodeOutOfOrderSequenceNumber           Code = 45
	CodeDuplicateSequenceNumber            Code = 46
	CodeInvalidProducerEpoch               Code = 47
	CodeInvalidTxnState                    Code = 48
	CodeInvalidProducerIDMapping           Code = 49
	CodeInvalidTransactionTimeout          Code = 50
	CodeConcurrentTransactions             Code = 51
	CodeTransactionCoordinatorFenced       Code = 52
	CodeTransactionalIDAuthorizationFailed Code = 53
	CodeSecurityDisabled                   Code = 54
	CodeOperationNotAttempted              Code = 55
	CodeKafkaStorageError                  Code = 56
	CodeLogDirNotFound                     Code = 57
	CodeSASLAuthenticationFailed           Code = 58
	CodeUnknownProducerID                  Code = 59
	CodeReassignmentInProgress             Code = 60
	CodeDelegationTokenAuthDisabled        Code = 61
	CodeDelegationTokenNotFound            Code = 62
	CodeDelegationTokenOwnerMismatch       Code = 63
	CodeDelegationTokenRequestNotAllowed   Code = 64
	CodeDelegationTokenAuthorizationFailed Code = 65
	CodeDelegationTokenExpired             Code = 66
	CodeInvalidPrincipalType               Code = 67
	CodeNonEmptyGroup                      Code = 68
	CodeGroupIDNotFound                    Code = 69
	CodeFetchSessionIDNotFound             Code = 70
	CodeInvalidFetchSessionEpoch           Code = 71
	CodeListenerNotFound                   Code = 72
	CodeTopicDeletionDisabled              Code = 73
	CodeFencedLeaderEpoch                  Code = 74
	CodeUnknownLeaderEpoch                 Code = 75
	CodeUnsupportedCompressionType         Code = 76
	CodeStaleBrokerEpoch                   Code = 77
	CodeOffsetNotAvailable                 Code = 78
	CodeMemberIDRequired                   Code = 79
	CodePreferredLeaderNotAvailable        Code = 80
	CodeGroupMaxSizeReached                Code = 81
	CodeFencedInstanceID                   Code = 82
	CodeEligibleLeadersNotAvailable        Code = 83
	CodeElectionNotNeeded                  Code = 84
	CodeNoReassignmentInProgress           Code = 85
	CodeGroupSubscribedToTopic             Code = 86
	CodeInvalidRecord                      Code = 87
	CodeUnstableOffsetCommit               Code = 88
	CodeThrottlingQuotaExceeded            Code = 89
	CodeProducerFenced                     Code = 90
	CodeResourceNotFound                   Code = 91
	CodeDuplicateResource                  Code = 92
	CodeUnacceptableCredential             Code = 93
	CodeInconsistentVoterSet               Code = 94
	CodeInvalidUpdateVersion               Code = 95
	CodeFeatureUpdateFailed                Code = 96
	CodePrincipalDeserializationFailure    Code = 97
	CodeSnapshotNotFound                   Code = 98
	CodePositionOutOfRange                 Code = 99
	CodeUnknownTopicID                     Code = 100
	CodeDuplicateBrokerRegistration        Code = 101
	CodeBrokerIDNotRegistered              Code = 102
	CodeInconsistentTopicID                Code = 103
	CodeInconsistentClusterID              Code = 104
	CodeTransactionalIDNotFound            Code = 105
	CodeFetchSessionTopicIDError           Code = 106
	CodeIneligibleReplica                  Code = 107
	CodeNewLeaderElected                   Code = 108
	CodeOffsetMovedToTieredStorage         Code = 109
	CodeFencedMemberEpoch                  Code = 110
	CodeUnreleasedInstanceID               Code = 111
	CodeUnsupportedAssignor                Code = 112
	CodeStaleMemberEpoch                   Code = 113
	CodeMismatchedEndpointType             Code = 114
	CodeUnsupportedEndpointType            Code = 115
	CodeUnknownControllerID                Code = 116
	CodeUnknownSubscriptionID              Code = 117
	CodeTelemetryTooLarge                  Code = 118
	CodeInvalidRegistration                Code = 119
	CodeTransactionAbortable               Code = 120
	CodeInvalidRecordState                 Code = 121
	CodeShareSessionNotFound               Code = 122
	CodeInvalidShareSessionEpoch           Code = 123
	CodeFencedStateEpoch                   Code = 124
	CodeInvalidVoterKey                    Code = 125
	CodeDuplicateVoter                     Code = 126
	CodeVoterNotFound                      Code = 127
	CodeInvalidRegularExpression           Code = 128
	CodeRebootstrapRequired                Code = 129
	CodeStreamsInvalidTopology             Code = 130
	CodeStreamsInvalidTopologyEpoch        Code = 131
	CodeStreamsTopologyFenced              Code = 132
	CodeShareSessionLimitReached           Code = 133
)

// codes is indexed by code + 1.
var codes = [...]struct {
	name      string
	retriable bool
	message   string
}{
	CodeUnknownServerError + 1:                 {"UNKNOWN_SERVER_ERROR", false, "unexpected error on the server"},
	CodeNone + 1:                               {"NONE", false, "no error"},
	CodeOffsetOutOfRange + 1:                   {"OFFSET_OUT_OF_RANGE", false, "offset lies outside the log"},
	CodeCorruptMessage + 1:                     {"CORRUPT_MESSAGE", true, "records are corrupt: bad checksum, size or layout, or a key missing on a compacted topic"},
	CodeUnknownTopicOrPartition + 1:            {"UNKNOWN_TOPIC_OR_PARTITION", true, "topic or partition is not known here"},
	CodeInvalidFetchSize + 1:                   {"INVALID_FETCH_SIZE", false, "fetch size is invalid"},
	CodeLeaderNotAvailable + 1:                 {"LEADER_NOT_AVAILABLE", true, "partition has no leader at present"},
	CodeNotLeaderOrFollower + 1:                {"NOT_LEADER_OR_FOLLOWER", true, "this broker does not lead the partition"},
	CodeRequestTimedOut + 1:                    {"REQUEST_TIMED_OUT", true, "request timed out on the server"},
	CodeBrokerNotAvailable + 1:                 {"BROKER_NOT_AVAILABLE", false, "broker is not available"},
	CodeReplicaNotAvailable + 1:                {"REPLICA_NOT_AVAILABLE", true, "replica is not available"},
	CodeMessageTooLarge + 1:                    {"MESSAGE_TOO_LARGE", false, "message is larger than the limit of the topic"},
	CodeStaleControllerEpoch + 1:               {"STALE_CONTROLLER_EPOCH", false, "controller epoch is stale"},
	CodeOffsetMetadataTooLarge + 1:             {"OFFSET_METADATA_TOO_LARGE", false, "metadata of the offset commit is too large"},
	CodeNetworkException + 1:                   {"NETWORK_EXCEPTION", true, "connection was lost before the answer came"},
	CodeCoordinatorLoadInProgress + 1:          {"COORDINATOR_LOAD_IN_PROGRESS", true, "group coordinator is still loading"},
	CodeCoordinatorNotAvailable + 1:            {"COORDINATOR_NOT_AVAILABLE", true, "coordinator is not available"},
	CodeNotCoordinator + 1:                     {"NOT_COORDINATOR", true, "this broker is not the coordinator"},
	CodeInvalidTopicException + 1:              {"INVALID_TOPIC_EXCEPTION", false, "topic name is invalid, or the topic is internal"},
	CodeRecordListTooLarge + 1:                 {"RECORD_LIST_TOO_LARGE", false, "record batch is larger than a segment"},
	CodeNotEnoughReplicas + 1:                  {"NOT_ENOUGH_REPLICAS", true, "fewer in-sync replicas than min.insync.replicas"},
	CodeNotEnoughReplicasAfterAppend + 1:       {"NOT_ENOUGH_REPLICAS_AFTER_APPEND", true, "records were written, but to fewer in-sync replicas than min.insync.replicas"},
	CodeInvalidRequiredAcks + 1:                {"INVALID_REQUIRED_ACKS", false, "acks must be 0, 1 or -1"},
	CodeIllegalGeneration + 1:                  {"ILLEGAL_GENERATION", false, "group generation is not the current one"},
	CodeInconsistentGroupProtocol + 1:          {"INCONSISTENT_GROUP_PROTOCOL", false, "member protocols do not agree with those of the group"},
	CodeInvalidGroupID + 1:                     {"INVALID_GROUP_ID", false, "group id is invalid"},
	CodeUnknownMemberID + 1:                    {"UNKNOWN_MEMBER_ID", false, "member id is not known to the group"},
	CodeInvalidSessionTimeout + 1:              {"INVALID_SESSION_TIMEOUT", false, "session timeout is outside the broker's range"},
	CodeRebalanceInProgress + 1:                {"REBALANCE_IN_PROGRESS", false, "group is rebalancing, join again"},
	CodeInvalidCommitOffsetSize + 1:            {"INVALID_COMMIT_OFFSET_SIZE", false, "commit is larger than a record may be"},
	CodeTopicAuthorizationFailed + 1:           {"TOPIC_AUTHORIZATION_FAILED", false, "not authorized for the topic"},
	CodeGroupAuthorizationFailed + 1:           {"GROUP_AUTHORIZATION_FAILED", false, "not authorized for the group"},
	CodeClusterAuthorizationFailed + 1:         {"CLUSTER_AUTHORIZATION_FAILED", false, "not authorized for the cluster"},
	CodeInvalidTimestamp + 1:                   {"INVALID_TIMESTAMP", false, "record timestamp is outside the allowed range"},
	CodeUnsupportedSASLMechanism + 1:           {"UNSUPPORTED_SASL_MECHANISM", false, "SASL mechanism is not supported"},
	CodeIllegalSASLState + 1:                   {"ILLEGAL_SASL_STATE", false, "request is not valid in this state of the SASL exchange"},
	CodeUnsupportedVersion + 1:                 {"UNSUPPORTED_VERSION", false, "version of this API is not supported"},
	CodeTopicAlreadyExists + 1:                 {"TOPIC_ALREADY_EXISTS", false, "topic exists already"},
	CodeInvalidPartitions + 1:                  {"INVALID_PARTITIONS", false, "number of partitions is invalid"},
	CodeInvalidReplicationFactor + 1:           {"INVALID_REPLICATION_FACTOR", false, "replication factor is invalid"},
	CodeInvalidReplicaAssignment + 1:           {"INVALID_REPLICA_ASSIGNMENT", false, "replica assignment is invalid"},
	CodeInvalidConfig + 1:                      {"INVALID_CONFIG", false, "configuration is invalid"},
	CodeNotController + 1:                      {"NOT_CONTROLLER", true, "this broker is not the controller"},
	CodeInvalidRequest + 1:                     {"INVALID_REQUEST", false, "request is invalid"},
	CodeUnsupportedForMessageFormat + 1:        {"UNSUPPORTED_FOR_MESSAGE_FORMAT", false, "message format does not support the request"},
	CodePolicyViolation + 1:                    {"POLICY_VIOLATION", false, "request violates a policy"},
	CodeOutOfOrderSequenceNumber + 1:           {"OUT_OF_ORDER_SEQUENCE_NUMBER", false, "producer sequence number is out of order"},
	CodeDuplicateSequenceNumber + 1:            {"DUPLICATE_SEQUENCE_NUMBER", false, "producer sequence number was seen already"},
	CodeInvalidProducerEpoch + 1:               {"INVALID_PRODUCER_EPOCH", false, "producer epoch is old"},
	CodeInvalidTxnState + 1:                    {"INVALID_TXN_STATE", false, "transaction is in a state that does not allow this"},
	CodeInvalidProducerIDMapping + 1:           {"INVALID_PRODUCER_ID_MAPPING", false, "producer id does not belong to the transactional id"},
	CodeInvalidTransactionTimeout + 1:          {"INVALID_TRANSACTION_TIMEOUT", false, "transaction timeout is over the broker's maximum"},
	CodeConcurrentTransactions + 1:             {"CONCURRENT_TRANSACTIONS", true, "another operation on the transaction is still going on"},
	CodeTransactionCoordinatorFenced + 1:       {"TRANSACTION_COORDINATOR_FENCED", false, "transaction coordinator was replaced by a newer one"},
	CodeTransactionalIDAuthorizationFailed + 1: {"TRANSACTIONAL_ID_AUTHORIZATION_FAILED", false, "not authorized for the transactional id"},
	CodeSecurityDisabled + 1:                   {"SECURITY_DISABLED", false, "security features are off"},
	CodeOperationNotAttempted + 1:              {"OPERATION_NOT_ATTEMPTED", false, "not attempted, as an earlier part of the request failed"},
	CodeKafkaStorageError + 1:                  {"KAFKA_STORAGE_ERROR", true, "storage error on the broker"},
	CodeLogDirNotFound + 1:                     {"LOG_DIR_NOT_FOUND", false, "log directory does not exist"},
	CodeSASLAuthenticationFailed + 1:           {"SASL_AUTHENTICATION_FAILED", false, "SASL authentication failed"},
	CodeUnknownProducerID + 1:                  {"UNKNOWN_PRODUCER_ID", false, "nothing is known of the producer id"},
	CodeReassignmentInProgress + 1:             {"REASSIGNMENT_IN_PROGRESS", false, "partition is being reassigned"},
	CodeDelegationTokenAuthDisabled + 1:        {"DELEGATION_TOKEN_AUTH_DISABLED", false, "delegation tokens are off"},
	CodeDelegationTokenNotFound + 1:            {"DELEGATION_TOKEN_NOT_FOUND", false, "delegation token does not exist"},
	CodeDelegationTokenOwnerMismatch + 1:       {"DELEGATION_TOKEN_OWNER_MISMATCH", false, "delegation token belongs to somebody else"},
	CodeDelegationTokenRequestNotAllowed + 1:   {"DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", false, "delegation tokens may not be requested over this channel"},
	CodeDelegationTokenAuthorizationFailed + 1: {"DELEGATION_TOKEN_AUTHORIZATION_FAILED", false, "not authorized for the delegation token"},
	CodeDelegationTokenExpired + 1:             {"DELEGATION_TOKEN_EXPIRED", false, "delegation token expired"},
	CodeInvalidPrincipalType + 1:               {"INVALID_PRINCIPAL_TYPE", false, "principal type is not supported"},
	CodeNonEmptyGroup + 1:                      {"NON_EMPTY_GROUP", false, "group is not empty"},
	CodeGroupIDNotFound + 1:                    {"GROUP_ID_NOT_FOUND", false, "group does not exist"},
	CodeFetchSessionIDNotFound + 1:             {"FETCH_SESSION_ID_NOT_FOUND", true, "fetch session does not exist"},
	CodeInvalidFetchSessionEpoch + 1:           {"INVALID_FETCH_SESSION_EPOCH", true, "fetch session epoch is not the expected one"},
	CodeListenerNotFound + 1:                   {"LISTENER_NOT_FOUND", true, "leader does not have that listener"},
	CodeTopicDeletionDisabled + 1:              {"TOPIC_DELETION_DISABLED", false, "topic deletion is off"},
	CodeFencedLeaderEpoch + 1:                  {"FENCED_LEADER_EPOCH", true, "leader epoch of the request is older than the broker's"},
	CodeUnknownLeaderEpoch + 1:                 {"UNKNOWN_LEADER_EPOCH", true, "leader epoch of the request is newer than the broker's"},
	CodeUnsupportedCompressionType + 1:         {"UNSUPPORTED_COMPRESSION_TYPE", false, "client cannot read the compression of the partition"},
	CodeStaleBrokerEpoch + 1:                   {"STALE_BROKER_EPOCH", false, "broker epoch is stale"},
	CodeOffsetNotAvailable + 1:                 {"OFFSET_NOT_AVAILABLE", true, "high watermark of the new leader is not known yet"},
	CodeMemberIDRequired + 1:                   {"MEMBER_ID_REQUIRED", false, "member id is required: join again with the one given"},
	CodePreferredLeaderNotAvailable + 1:        {"PREFERRED_LEADER_NOT_AVAILABLE", true, "preferred leader is not available"},
	CodeGroupMaxSizeReached + 1:                {"GROUP_MAX_SIZE_REACHED", false, "group is full"},
	CodeFencedInstanceID + 1:                   {"FENCED_INSTANCE_ID", false, "another member with the same group.instance.id took over"},
	CodeEligibleLeadersNotAvailable + 1:        {"ELIGIBLE_LEADERS_NOT_AVAILABLE", true, "no eligible leader is available"},
	CodeElectionNotNeeded + 1:                  {"ELECTION_NOT_NEEDED", true, "no election is needed"},
	CodeNoReassignmentInProgress + 1:           {"NO_REASSIGNMENT_IN_PROGRESS", false, "no reassignment is in progress"},
	CodeGroupSubscribedToTopic + 1:             {"GROUP_SUBSCRIBED_TO_TOPIC", false, "group is subscribed to the topic"},
	CodeInvalidRecord + 1:                      {"INVALID_RECORD", false, "record was refused by validation"},
	CodeUnstableOffsetCommit + 1:               {"UNSTABLE_OFFSET_COMMIT", true, "offsets of a transaction are still undecided"},
	CodeThrottlingQuotaExceeded + 1:            {"THROTTLING_QUOTA_EXCEEDED", true, "quota exceeded"},
	CodeProducerFenced + 1:                     {"PRODUCER_FENCED", false, "a newer producer took over the transactional id"},
	CodeResourceNotFound + 1:                   {"RESOURCE_NOT_FOUND", false, "resource does not exist"},
	CodeDuplicateResource + 1:                  {"DUPLICATE_RESOURCE", false, "resource is named twice"},
	CodeUnacceptableCredential + 1:             {"UNACCEPTABLE_CREDENTIAL", false, "credential does not meet the rules"},
	CodeInconsistentVoterSet + 1:               {"INCONSISTENT_VOTER_SET", false, "sender or receiver is not in the voter set"},
	CodeInvalidUpdateVersion + 1:               {"INVALID_UPDATE_VERSION", false, "version of the update is invalid"},
	CodeFeatureUpdateFailed + 1:                {"FEATURE_UPDATE_FAILED", false, "features could not be updated"},
	CodePrincipalDeserializationFailure + 1:    {"PRINCIPAL_DESERIALIZATION_FAILURE", false, "principal of a forwarded request cannot be read"},
	CodeSnapshotNotFound + 1:                   {"SNAPSHOT_NOT_FOUND", false, "snapshot does not exist"},
	CodePositionOutOfRange + 1:                 {"POSITION_OUT_OF_RANGE", false, "position lies outside the snapshot"},
	CodeUnknownTopicID + 1:                     {"UNKNOWN_TOPIC_ID", true, "topic id is not known here"},
	CodeDuplicateBrokerRegistration + 1:        {"DUPLICATE_BROKER_REGISTRATION", false, "broker id is in use"},
	CodeBrokerIDNotRegistered + 1:              {"BROKER_ID_NOT_REGISTERED", false, "broker id is not registered"},
	CodeInconsistentTopicID + 1:                {"INCONSISTENT_TOPIC_ID", true, "topic id differs from that of the log"},
	CodeInconsistentClusterID + 1:              {"INCONSISTENT_CLUSTER_ID", false, "cluster id differs"},
	CodeTransactionalIDNotFound + 1:            {"TRANSACTIONAL_ID_NOT_FOUND", false, "transactional id does not exist"},
	CodeFetchSessionTopicIDError + 1:           {"FETCH_SESSION_TOPIC_ID_ERROR", true, "fetch session mixes topic ids and names"},
	CodeIneligibleReplica + 1:                  {"INELIGIBLE_REPLICA", false, "new in-sync set holds an ineligible replica"},
	CodeNewLeaderElected + 1:                   {"NEW_LEADER_ELECTED", false, "leader changed with the update"},
	CodeOffsetMovedToTieredStorage + 1:         {"OFFSET_MOVED_TO_TIERED_STORAGE", false, "offset moved to tiered storage"},
	CodeFencedMemberEpoch + 1:                  {"FENCED_MEMBER_EPOCH", false, "member epoch was fenced: give up all partitions and join again"},
	CodeUnreleasedInstanceID + 1:               {"UNRELEASED_INSTANCE_ID", false, "group.instance.id is still in use"},
	CodeUnsupportedAssignor + 1:                {"UNSUPPORTED_ASSIGNOR", false, "assignor is not supported"},
	CodeStaleMemberEpoch + 1:                   {"STALE_MEMBER_EPOCH", false, "member epoch is stale"},
	CodeMismatchedEndpointType + 1:             {"MISMATCHED_ENDPOINT_TYPE", false, "request came to the wrong type of endpoint"},
	CodeUnsupportedEndpointType + 1:            {"UNSUPPORTED_ENDPOINT_TYPE", false, "type of endpoint is not supported"},
	CodeUnknownControllerID + 1:                {"UNKNOWN_CONTROLLER_ID", false, "controller id is not known"},
	CodeUnknownSubscriptionID + 1:              {"UNKNOWN_SUBSCRIPTION_ID", false, "telemetry subscription is unknown or old"},
	CodeTelemetryTooLarge + 1:                  {"TELEMETRY_TOO_LARGE", false, "telemetry is too large"},
	CodeInvalidRegistration + 1:                {"INVALID_REGISTRATION", false, "broker registration is invalid"},
	CodeTransactionAbortable + 1:               {"TRANSACTION_ABORTABLE", false, "transaction must be aborted"},
	CodeInvalidRecordState + 1:                 {"INVALID_RECORD_STATE", false, "record is not in a state that allows the acknowledgement"},
	CodeShareSessionNotFound + 1:               {"SHARE_SESSION_NOT_FOUND", true, "share session does not exist"},
	CodeInvalidShareSessionEpoch + 1:           {"INVALID_SHARE_SESSION_EPOCH", true, "share session epoch is not the expected one"},
	CodeFencedStateEpoch + 1:                   {"FENCED_STATE_EPOCH", false, "state epoch was fenced"},
	CodeInvalidVoterKey + 1:                    {"INVALID_VOTER_KEY", false, "voter key differs"},
	CodeDuplicateVoter + 1:                     {"DUPLICATE_VOTER", false, "voter is in the set already"},
	CodeVoterNotFound + 1:                      {"VOTER_NOT_FOUND", false, "voter is not in the set"},
	CodeInvalidRegularExpression + 1:           {"INVALID_REGULAR_EXPRESSION", false, "regular expression is invalid"},
	CodeRebootstrapRequired + 1:                {"REBOOTSTRAP_REQUIRED", false, "metadata is stale, bootstrap again"},
	CodeStreamsInvalidTopology + 1:             {"STREAMS_INVALID_TOPOLOGY", false, "streams topology is invalid"},
	CodeStreamsInvalidTopologyEpoch + 1:        {"STREAMS_INVALID_TOPOLOGY_EPOCH", false, "streams topology epoch is invalid"},
	CodeStreamsTopologyFenced + 1:              {"STREAMS_TOPOLOGY_FENCED", false, "streams topology epoch is old"},
	CodeShareSessionLimitReached + 1:           {"SHARE_SESSION_LIMIT_REACHED", true, "share sessions are at their limit"},
}

// Valid reports whether Kafka defines the code.
func (c Code) Valid() bool { return c >= -1 && int(c) < len(codes)-1 }

// String returns Kafka's name of the code, such as "NOT_LEADER_OR_FOLLOWER".
func (c Code) String() string {
	if !c.Valid() {
		return fmt.Sprintf("UNKNOWN_CODE_%d", int16(c))
	}
	return codes[c+1].name
}

// Retriable reports whether Kafka's clients try again by themselves after this code.
func (c Code) Retriable() bool { return c.Valid() && codes[c+1].retriable }

// Message says in a sentence, without capital and full stop, what the code means.
func (c Code) Message() string {
	if !c.Valid() {
		return c.String()
	}
	return codes[c+1].message
}

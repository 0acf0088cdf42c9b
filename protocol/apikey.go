package protocol

import "fmt"

// APIKey is the number of an API in the request header, as listed in Kafka's message definitions.
type APIKey int16

// The APIs of Apache Kafka 4.4. A key being here does not say that Skein serves it.
const (
	KeyProduce                               APIKey = 0
	KeyFetch                                 APIKey = 1
	KeyListOffsets                           APIKey = 2
	KeyMetadata                              APIKey = 3
	KeyLeaderAndIsr                          APIKey = 4
	KeyStopReplica                           APIKey = 5
	KeyUpdateMetadata                        APIKey = 6
	KeyControlledShutdown                    APIKey = 7
	KeyOffsetCommit                          APIKey = 8
	KeyOffsetFetch                           APIKey = 9
	KeyFindCoordinator                       APIKey = 10
	KeyJoinGroup                             APIKey = 11
	KeyHeartbeat                             APIKey = 12
	KeyLeaveGroup                            APIKey = 13
	KeySyncGroup                             APIKey = 14
	KeyDescribeGroups                        APIKey = 15
	KeyListGroups                            APIKey = 16
	KeySaslHandshake                         APIKey = 17
	KeyApiVersions                           APIKey = 18
	KeyCreateTopics                          APIKey = 19
	KeyDeleteTopics                          APIKey = 20
	KeyDeleteRecords                         APIKey = 21
	KeyInitProducerId                        APIKey = 22
	KeyOffsetForLeaderEpoch                  APIKey = 23
	KeyAddPartitionsToTxn                    APIKey = 24
	KeyAddOffsetsToTxn                       APIKey = 25
	KeyEndTxn                                APIKey = 26
	KeyWriteTxnMarkers                       APIKey = 27
	KeyTxnOffsetCommit                       APIKey = 28
	KeyDescribeAcls                          APIKey = 29
	KeyCreateAcls                            APIKey = 30
	KeyDeleteAcls                            APIKey = 31
	KeyDescribeConfigs                       APIKey = 32
	KeyAlterConfigs                          APIKey = 33
	KeyAlterReplicaLogDirs                   APIKey = 34
	KeyDescribeLogDirs                       APIKey = 35
	KeySaslAuthenticate                      APIKey = 36
	KeyCreatePartitions                      APIKey = 37
	KeyCreateDelegationToken                 APIKey = 38
	KeyRenewDelegationToken                  APIKey = 39
	KeyExpireDelegationToken                 APIKey = 40
	KeyDescribeDelegationToken               APIKey = 41
	KeyDeleteGroups                          APIKey = 42
	KeyElectLeaders                          APIKey = 43
	KeyIncrementalAlterConfigs               APIKey = 44
	KeyAlterPartitionReassignments           APIKey = 45
	KeyListPartitionReassignments            APIKey = 46
	KeyOffsetDelete                          APIKey = 47
	KeyDescribeClientQuotas                  APIKey = 48
	KeyAlterClientQuotas                     APIKey = 49
	KeyDescribeUserScramCredentials          APIKey = 50
	KeyAlterUserScramCredentials             APIKey = 51
	KeyVote                                  APIKey = 52
	KeyBeginQuorumEpoch                      APIKey = 53
	KeyEndQuorumEpoch                        APIKey = 54
	KeyDescribeQuorum                        APIKey = 55
	KeyAlterPartition                        APIKey = 56
	KeyUpdateFeatures                        APIKey = 57
	KeyEnvelope                              APIKey = 58
	KeyFetchSnapshot                         APIKey = 59
	KeyDescribeCluster                       APIKey = 60
	KeyDescribeProducers                     APIKey = 61
	KeyBrokerRegistration                    APIKey = 62
	KeyBrokerHeartbeat                       APIKey = 63
	KeyUnregisterBroker                      APIKey = 64
	KeyDescribeTransactions                  APIKey = 65
	KeyListTransactions                      APIKey = 66
	KeyAllocateProducerIds                   APIKey = 67
	KeyConsumerGroupHeartbeat                APIKey = 68
	KeyConsumerGroupDescribe                 APIKey = 69
	KeyControllerRegistration                APIKey = 70
	KeyGetTelemetrySubscriptions             APIKey = 71
	KeyPushTelemetry                         APIKey = 72
	KeyAssignReplicasToDirs                  APIKey = 73
	KeyListConfigResources                   APIKey = 74
	KeyDescribeTopicPartitions               APIKey = 75
	KeyShareGroupHeartbeat                   APIKey = 76
	KeyShareGroupDescribe                    APIKey = 77
	KeyShareFetch                            APIKey = 78
	KeyShareAcknowledge                      APIKey = 79
	KeyAddRaftVoter                          APIKey = 80
	KeyRemoveRaftVoter                       APIKey = 81
	KeyUpdateRaftVoter                       APIKey = 82
	KeyInitializeShareGroupState             APIKey = 83
	KeyReadShareGroupState                   APIKey = 84
	KeyWriteShareGroupState                  APIKey = 85
	KeyDeleteShareGroupState                 APIKey = 86
	KeyReadShareGroupStateSummary            APIKey = 87
	KeyStreamsGroupHeartbeat                 APIKey = 88
	KeyStreamsGroupDescribe                  APIKey = 89
	KeyDescribeShareGroupOffsets             APIKey = 90
	KeyAlterShareGroupOffsets                APIKey = 91
	KeyDeleteShareGroupOffsets               APIKey = 92
	KeyStreamsGroupTopologyDescriptionUpdate APIKey = 93
	KeyUnregisterController                  APIKey = 94
)

// apis holds per key the name and the first flexible version (KIP-482), or never.
var apis = [...]struct {
	name     string
	flexible int16
}{
	KeyProduce:                               {"Produce", 9},
	KeyFetch:                                 {"Fetch", 12},
	KeyListOffsets:                           {"ListOffsets", 6},
	KeyMetadata:                              {"Metadata", 9},
	KeyLeaderAndIsr:                          {"LeaderAndIsr", 4},
	KeyStopReplica:                           {"StopReplica", 2},
	KeyUpdateMetadata:                        {"UpdateMetadata", 6},
	KeyControlledShutdown:                    {"ControlledShutdown", 3},
	KeyOffsetCommit:                          {"OffsetCommit", 8},
	KeyOffsetFetch:                           {"OffsetFetch", 6},
	KeyFindCoordinator:                       {"FindCoordinator", 3},
	KeyJoinGroup:                             {"JoinGroup", 6},
	KeyHeartbeat:                             {"Heartbeat", 4},
	KeyLeaveGroup:                            {"LeaveGroup", 4},
	KeySyncGroup:                             {"SyncGroup", 4},
	KeyDescribeGroups:                        {"DescribeGroups", 5},
	KeyListGroups:                            {"ListGroups", 3},
	KeySaslHandshake:                         {"SaslHandshake", never},
	KeyApiVersions:                           {"ApiVersions", 3},
	KeyCreateTopics:                          {"CreateTopics", 5},
	KeyDeleteTopics:                          {"DeleteTopics", 4},
	KeyDeleteRecords:                         {"DeleteRecords", 2},
	KeyInitProducerId:                        {"InitProducerId", 2},
	KeyOffsetForLeaderEpoch:                  {"OffsetForLeaderEpoch", 4},
	KeyAddPartitionsToTxn:                    {"AddPartitionsToTxn", 3},
	KeyAddOffsetsToTxn:                       {"AddOffsetsToTxn", 3},
	KeyEndTxn:                                {"EndTxn", 3},
	KeyWriteTxnMarkers:                       {"WriteTxnMarkers", 1},
	KeyTxnOffsetCommit:                       {"TxnOffsetCommit", 3},
	KeyDescribeAcls:                          {"DescribeAcls", 2},
	KeyCreateAcls:                            {"CreateAcls", 2},
	KeyDeleteAcls:                            {"DeleteAcls", 2},
	KeyDescribeConfigs:                       {"DescribeConfigs", 4},
	KeyAlterConfigs:                          {"AlterConfigs", 2},
	KeyAlterReplicaLogDirs:                   {"AlterReplicaLogDirs", 2},
	KeyDescribeLogDirs:                       {"DescribeLogDirs", 2},
	KeySaslAuthenticate:                      {"SaslAuthenticate", 2},
	KeyCreatePartitions:                      {"CreatePartitions", 2},
	KeyCreateDelegationToken:                 {"CreateDelegationToken", 2},
	KeyRenewDelegationToken:                  {"RenewDelegationToken", 2},
	KeyExpireDelegationToken:                 {"ExpireDelegationToken", 2},
	KeyDescribeDelegationToken:               {"DescribeDelegationToken", 2},
	KeyDeleteGroups:                          {"DeleteGroups", 2},
	KeyElectLeaders:                          {"ElectLeaders", 2},
	KeyIncrementalAlterConfigs:               {"IncrementalAlterConfigs", 1},
	KeyAlterPartitionReassignments:           {"AlterPartitionReassignments", 0},
	KeyListPartitionReassignments:            {"ListPartitionReassignments", 0},
	KeyOffsetDelete:                          {"OffsetDelete", never},
	KeyDescribeClientQuotas:                  {"DescribeClientQuotas", 1},
	KeyAlterClientQuotas:                     {"AlterClientQuotas", 1},
	KeyDescribeUserScramCredentials:          {"DescribeUserScramCredentials", 0},
	KeyAlterUserScramCredentials:             {"AlterUserScramCredentials", 0},
	KeyVote:                                  {"Vote", 0},
	KeyBeginQuorumEpoch:                      {"BeginQuorumEpoch", 1},
	KeyEndQuorumEpoch:                        {"EndQuorumEpoch", 1},
	KeyDescribeQuorum:                        {"DescribeQuorum", 0},
	KeyAlterPartition:                        {"AlterPartition", 0},
	KeyUpdateFeatures:                        {"UpdateFeatures", 0},
	KeyEnvelope:                              {"Envelope", 0},
	KeyFetchSnapshot:                         {"FetchSnapshot", 0},
	KeyDescribeCluster:                       {"DescribeCluster", 0},
	KeyDescribeProducers:                     {"DescribeProducers", 0},
	KeyBrokerRegistration:                    {"BrokerRegistration", 0},
	KeyBrokerHeartbeat:                       {"BrokerHeartbeat", 0},
	KeyUnregisterBroker:                      {"UnregisterBroker", 0},
	KeyDescribeTransactions:                  {"DescribeTransactions", 0},
	KeyListTransactions:                      {"ListTransactions", 0},
	KeyAllocateProducerIds:                   {"AllocateProducerIds", 0},
	KeyConsumerGroupHeartbeat:                {"ConsumerGroupHeartbeat", 0},
	KeyConsumerGroupDescribe:                 {"ConsumerGroupDescribe", 0},
	KeyControllerRegistration:                {"ControllerRegistration", 0},
	KeyGetTelemetrySubscriptions:             {"GetTelemetrySubscriptions", 0},
	KeyPushTelemetry:                         {"PushTelemetry", 0},
	KeyAssignReplicasToDirs:                  {"AssignReplicasToDirs", 0},
	KeyListConfigResources:                   {"ListConfigResources", 0},
	KeyDescribeTopicPartitions:               {"DescribeTopicPartitions", 0},
	KeyShareGroupHeartbeat:                   {"ShareGroupHeartbeat", 0},
	KeyShareGroupDescribe:                    {"ShareGroupDescribe", 0},
	KeyShareFetch:                            {"ShareFetch", 0},
	KeyShareAcknowledge:                      {"ShareAcknowledge", 0},
	KeyAddRaftVoter:                          {"AddRaftVoter", 0},
	KeyRemoveRaftVoter:                       {"RemoveRaftVoter", 0},
	KeyUpdateRaftVoter:                       {"UpdateRaftVoter", 0},
	KeyInitializeShareGroupState:             {"InitializeShareGroupState", 0},
	KeyReadShareGroupState:                   {"ReadShareGroupState", 0},
	KeyWriteShareGroupState:                  {"WriteShareGroupState", 0},
	KeyDeleteShareGroupState:                 {"DeleteShareGroupState", 0},
	KeyReadShareGroupStateSummary:            {"ReadShareGroupStateSummary", 0},
	KeyStreamsGroupHeartbeat:                 {"StreamsGroupHeartbeat", 0},
	KeyStreamsGroupDescribe:                  {"StreamsGroupDescribe", 0},
	KeyDescribeShareGroupOffsets:             {"DescribeShareGroupOffsets", 0},
	KeyAlterShareGroupOffsets:                {"AlterShareGroupOffsets", 0},
	KeyDeleteShareGroupOffsets:               {"DeleteShareGroupOffsets", 0},
	KeyStreamsGroupTopologyDescriptionUpdate: {"StreamsGroupTopologyDescriptionUpdate", 0},
	KeyUnregisterController:                  {"UnregisterController", 0},
}

// never is the first flexible version of an API that has none.
const never = 1<<15 - 1

// Valid reports whether Kafka defines the key.
func (k APIKey) Valid() bool { return k >= 0 && int(k) < len(apis) }

// String returns Kafka's name of the API, such as "InitProducerId".
func (k APIKey) String() string {
	if !k.Valid() {
		return fmt.Sprintf("Unknown(%d)", int16(k))
	}
	return apis[k].name
}

// Flexible reports whether that version of the API uses compact forms and tagged fields, in header and body.
func (k APIKey) Flexible(version int16) bool { return k.Valid() && version >= apis[k].flexible }

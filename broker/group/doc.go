// Package group is the coordinator of classic consumer groups (JoinGroup, SyncGroup,
// Heartbeat, LeaveGroup and the rules of offset commits) as a pure state machine: requests
// and the time go in; answers to parked requests, metadata to persist and the next deadline
// come out. It behaves as Apache Kafka's group coordinator does, member by member and code
// by code; where Kafka's answer depends on the order of a hash map, this one is in the order
// in which members joined.
//
// It has no clock, no goroutine, no I/O and no randomness: the same inputs give the same
// outputs, which is what the scripts in testdata and the random test rest on. It refuses to
// know the wire, where metadata is stored, and where offsets are: the driver asks it whether
// a commit is allowed and keeps the offsets itself.
package group

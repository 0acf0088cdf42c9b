// Package coordinator runs the group coordinators of one broker: a shard for each partition
// of __consumer_offsets, each with a goroutine of its own around the state machine of package
// group. It gives that machine the time, parks the requests that wait for other members,
// persists what it decides through the controller, many requests in one raft entry, and
// answers only what is durable.
//
// It promises that an offset commit or an assignment that was answered survives any crash,
// and that a shard whose write failed believes nothing of what it had in memory: it claims
// its partition again and loads what is stored. It refuses to know the wire and the names of
// configs; topics are identified by their ids.
package coordinator

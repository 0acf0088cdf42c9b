// Package controller holds the cluster's replicated memory: what the coordinators promised
// their clients at data rate, and what must not depend on one broker's disk. It is a
// hashicorp/raft group (log in raft-wal) around a deterministic state machine that keeps,
// for each of the coordinator partitions, the metadata of its groups and their committed
// offsets, and the blocks of producer ids that were given out.
//
// It promises that a command whose Apply returned nil is on the disks of a majority, is
// visible to every later read of its owner, and survives any crash; that commands of a
// coordinator whose partition was claimed by another one since are refused (ErrFenced), so
// two coordinators cannot both promise; and that a command applied twice or late changes
// nothing (ErrStale).
//
// It refuses to know what a group's metadata says (the value is opaque; package
// broker/group owns its format), what time it is (commands carry it), and where data lives
// (that is queuemapper's). One voter is a complete controller: it elects itself. With three
// or five the same code runs over the transport it is handed.
package controller

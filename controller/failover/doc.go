// Package failover makes the groups of a dead broker's logs writable on other brokers, exactly where their last owner
// left them: seal the log in the map, take the one table that a member of its witness set seals, have survivors write
// the groups' next opening frames, publish (DESIGN section 4, rules O9 to O14).
//
// Failover.FailOver is one sequential procedure over a map store and three small interfaces; what it does at the same time, and
// how it waits, is given to it, so that a simulation can run it step by step. It may be repeated, run twice at once, or
// be left anywhere: every step is one that the rules allow whoever takes it, with however old a view. Controller.Run is the loop of the
// active controller around it: who is dead, what an earlier controller left half done, what must wait for its disk.
//
// It knows no bytes of logs, no network and no raft.
package failover

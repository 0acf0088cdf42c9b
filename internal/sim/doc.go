// Package sim is a seeded simulation of a Skein cluster: the real code of the map's store, of witnesses, of failover, of the
// balancer's planner and of what a host does with its logs, as coroutines on virtual time, with a network, disks, logs and an
// etcd of its own (ADR 18).
//
// It promises that a seed always gives the same run: no clock, no real concurrency, no order of Go's maps. It is test code
// and nothing imports it. What must always be true (DESIGN section 10) is checked as follows.
//
//   - I1, I3: after each event that changed a group's record or took something from a disk, everything that was acked or seen is at its
//     offset on the disk that the map names, unless that disk was made to lose it or was given up (ghost.verify); an ack is for what is
//     committed (ghost.acknowledged); at the end every consumer has read everything.
//   - I2, I4, I8: at each commit, each activation and each answer to a consumer: one content per offset, no offset before the one
//     below it unless the map says that it is lost, no content twice, no sequence out of turn (ghost.see, read, skipped). At each
//     write of the map: what is marked as lost stays so, and what is new there is what a disk has lost, or lay on one that was
//     given up (ghost.marked). An operator who gave a log up, and was told so, finds all of it marked (ghost.gaveUp). A log that is back
//     is not below a log start that nobody asked for (ghost.keptReadable). Where a generation was sealed at its ceiling, a batch that
//     was not acked before may be there twice (past.again).
//   - I5: at each write of the map: epochs rise, one generation is open, sealed ends stay, logs change state as O1, O9 and O15 say, and
//     one log stays open, a record goes only by an operator's word, sealed and with no group open in it (ghost.changedGroup,
//     changedLog, oneIsOpen, deletedLog); offsets are in some run (ghost.verify).
//   - I6: at each publication: acked or seen ≤ end ≤ what is durable on the old disk (ghost.sealed); where nobody knows the end, all of
//     its partitions end at the ceiling (ghost.sealedAtCeiling); at each activation and each answer: nothing is shown that is not
//     committed.
//   - I7: at each activation the marks are no lower than any that an owner of an older epoch has shown; a consumer that has been
//     somewhere is never out of range (ghost.activated, consumer).
//   - O22: a generation is sealed at its ceiling only in a log that an operator has given up at this epoch, and nothing is committed in
//     it that was not durable by then (ghost.sealedAtCeiling, late).
//   - I10: when a log comes into service its sealed runs end where the map says, and what its disk has lost is marked, exactly
//     (ghost.inService); what is lost never reads as something else (ghost.verify); a disk that was given up is never in service
//     again, nor its log in the map (broker.take, ghost.changedLog).
//   - I13: at each seal: the member that answers is the incarnation that the record names (members.Seal).
//   - I14: after the trouble every broker is in service, every group is open where its log is served, and every partition takes a write
//     (story, probe); so it is while two brokers do not reach each other, if all others reach both (world.setApart).
//
// I9, I11 and I12 are about what is not here: transactions, the log's index, reclaim. commitlog holds the latter two on a simulated
// disk with every fault in turn: Verify follows each entry of the index (TestFaultSweep), and what is live is read whole after files
// have gone (TestFloorReclaimsFiles, TestReadersMoveAlong).
//
// What a failing seed prints is the command that replays it, with everything that happens, line by line.
package sim

// Package record knows Kafka's record batches: magic 2, and the message sets of magic 0 and 1 that came before.
//
// [Validate] decides what a produce request may store, with the outcomes of Apache Kafka's LogValidator. What it looks at:
//
//   - always: one batch, length, magic, CRC-32C, codec, base offset 0, count against last offset delta, no control batch,
//     a sequence where there is a producer id, size against the topic's limit;
//   - every record: that lengths add up, number of records, offset deltas, timestamps against the topic's limits, keys on
//     compacted topics. For uncompressed batches that is a walk over a few bytes per record, beside the CRC not worth
//     avoiding. Compressed ones are decompressed for it, as Kafka does: the CRC says nothing about whether the payload
//     can be decompressed, and a batch that cannot would stop every consumer of the partition. Rules.TrustCompressed skips that.
//
// A valid batch is stored as it came, save what Kafka also changes in place: a wrong max timestamp, or the append time. Only
// another codec, gaps between offset deltas, or an old magic make a new one.
//
// The package promises that no input makes it panic, and that it never holds more decompressed bytes than the limit it was
// given (for zstd frames that do not announce their size: than DefaultDecompressLimit). It refuses to know topics, offsets
// already in use, producer state and error codes: errors match the sentinels below, and the broker translates.
package record

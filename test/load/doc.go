// Package load runs real clients (franz-go) against brokers that are being killed, and reports all they are told to a
// history: producers with and without idempotence, consumers that read along, re-readers, members of a group that
// commit, and an observer of marks. It knows no process and no fault; whoever runs it breaks things meanwhile.
package load

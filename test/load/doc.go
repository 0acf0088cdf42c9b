// Package load runs real clients (franz-go, and others in processes of their own) against brokers that are being killed,
// and reports all they are told to a history: producers with and without idempotence, consumers that read along,
// re-readers, members of a group that commit, and an observer of marks. It knows no broker's process and no fault; whoever runs it breaks things meanwhile.
package load

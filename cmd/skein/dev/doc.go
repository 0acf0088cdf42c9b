// Package dev runs a small cluster as child processes on loopback: the supervisor behind `skein dev`.
//
// It starts one process per broker, tells one ready line for each, takes commands (kill, pause, restart, add, …)
// from standard input and from a socket, and draws a live table from the brokers' own HTTP API. Children end with
// the supervisor, also when it is killed. It knows nothing of the parts of a broker: it only runs commands and asks.
package dev

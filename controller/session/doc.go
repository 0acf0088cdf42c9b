// Package session is how the active controller knows which brokers live. Each broker sends heartbeats to it,
// wherever it is (Client); the controller keeps a session for each (Server).
//
// A broker is given up when it was silent for the timeout (2 s); when it has no stream and its address refuses a
// connection, which says that its process is gone; or when it says itself that it leaves. Its incarnation stays
// dead; another one is a new broker. A new controller gives everybody in the map the full timeout, but knocks at once at the
// doors of those it does not hear from. Time is monotonic: clocks that are set change nothing, and a controller that
// stood still itself does not count that time against others.
//
// Safety does not rest on any of it: what is decided from it compares and swaps in the map (O1, O9, O13). The package refuses
// to know logs, groups and what is done about a death.
package session

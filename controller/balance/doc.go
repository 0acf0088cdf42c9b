// Package balance decides which placement groups shall live on which log, and asks their owners to move them.
//
// Planner is pure: the map, who lives, the groups' loads and the time go in; moves come out, each with its reason.
// It is sticky: what is good enough stays. In order: groups leave brokers that drain; groups go where they are pinned; every open
// log of a live broker has its share of groups; no broker carries much more load than the others for long. Only the
// last is limited in rate, as only it can be wrong about the future. It stops itself when many brokers vanish together.
//
// Loop is the active controller's: it plans once in a while and when brokers come and go, and asks owners. It knows no network.
package balance

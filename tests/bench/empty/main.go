// Command empty does nothing. What it costs to run it is the least that a Go program can cost.
package main

func main() {}

// Package probe asks a shared address from many client addresses at once, at a steady rate, and captures every answer with its
// Ethernet source. So it reports which node answered each question, and whether one was answered twice, late, with a wrong MAC,
// or never. It writes a log with one line per event, a summary, and a picture.
//
//	p, err := probe.Start(ctx, probe.Options{Client: n.Client, Target: vip, Sources: n.Sources(64), Node: name})
//	p.Mark("node2 killed")
//	killed := time.Now()
//	// kill it
//	err = p.WaitAnswered(ctx, killed)
//	log, err := p.Stop()
//	fmt.Print(log.Summary()) // and log.WriteTo(file), log.WriteSVG(file, probe.Picture{})
//
// # What is asked
//
// Each source asks one question per interval in each protocol. Every question has a number.
//
//	icmp     an echo request. The payload holds the number.
//	udp      a datagram to the echo port. The payload holds the number.
//	connect  a new TCP connection from a new port, which is reset when the server has named itself. With Options.Requests it is
//	         a whole exchange: when the server has named itself, a request, whose answer is the question's.
//	stream   a request on a TCP connection that stays open. The payload holds the number; the next request waits for the
//	         answer to the last one. A connection that breaks is made again at once, with a new question; so is one that has
//	         lived for Options.StreamLife, which is closed when it has its answer.
//
// A question is answered or refused (TCP: a RST to the SYN; UDP: an ICMP error), or else lost: after Options.Timeout, and
// when its connection breaks. That timeout is below the second after which the kernel repeats a SYN
// (RFC 6298), and a SYN that it repeats all the same counts as lost: so no repetition hides a loss. The requests of a
// stream, however, are TCP's to repeat: one that takes longer than Options.StallAfter is noted as stalled.
//
// Times of answers are when the kernel saw the frame. A result depends on times only where the text above has one.
//
// # What is a duplicate
//
// A question of icmp or udp is sent once; so every answer but the first is a duplicate, whoever sent it.
//
// In TCP each side repeats what it takes for lost, and one node may rightly send the same segment twice: it answers a
// repeated SYN with a second SYN-ACK, and repeats data when our acknowledgement was lost. So a second copy from the same
// node proves nothing. A SYN or a request that *several nodes* answer does, be it with a SYN-ACK, data or a RST. It is a
// duplicate if more nodes answer than the client sent copies (of several copies, one may have met the old owner of the
// bucket, and another the new one). An answer belongs to the segment that it acknowledges; a RST without
// ACK shows that by its sequence number, which is the acknowledgement number of the segment that it refuses (RFC 9293,
// section 3.5.2).
//
// Without draining, the new owner of a bucket refuses what comes in on connections that it does not have: that is a broken
// connection, with the name of the node that broke it, and no duplicate.
//
// # The log
//
// A line holds the seconds since the start, the kind of event, the protocol, the source, the question's number, the node,
// the seconds since the question was asked, and then free text. What does not apply is "-".
//
//	12.345678 answer    icmp    192.168.64.1 123 node1 0.000213
//	13.000000 mark      -       -            -   -     -        node2 killed
//	13.345678 duplicate udp     192.168.64.7 133 node3 0.000245 after node1
//	14.012345 lost      connect 192.168.64.2 130 -     0.900000
//	17.654321 broken    stream  192.168.64.2 130 node3 4.654000 reset
//
// The kinds are mark, answer, lost, refused (one of these three for every question), late (an answer to a question that
// that was lost), duplicate, wrong-mac (an answer from a MAC that is no node's own, or ARP that announces anything but the
// shared MAC), open (a stream, or a connection that is to send a request, is made), stalled and broken (it has none any more).
package probe

// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// Drops packets to a shared address that are surely of another node's bucket. Everything else passes on to our rules in nf_tables, which
// decide (internal/kernel/nftables/ingress.go). So whatever is rare or odd passes: it need not be judged here.
//
// It also remembers the TCP connections of all nodes, so that this node can tell the clients of one that has died.
//
// It must load on Linux 5.10 and without BTF. It reads ports and addresses as nft_hash does: as words in the kernel's byte order.

#include <linux/bpf.h>

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define LIKELY(condition) __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NETWORK16(value) __builtin_bswap16(value)
#define NETWORK32(value) __builtin_bswap32(value)
#define FIRST16(value) ((__u32)(value)) /* a word of memory that begins with these two bytes */
#else
#define NETWORK16(value) (value)
#define NETWORK32(value) (value)
#define FIRST16(value) ((__u32)(value) << 16)
#endif

/* The sizes that table.go and record.go have too. */
#define RECORDS 256
#define INDEX_BITS 10
#define PER_INDEX 4
#define BITMAP_WORDS 32
#define MAX_SERVICES 32
#define TOO_MANY_SERVICES 255
#define SLOT_BITS 17
#define MARK_BITS 16

struct service {
	__u16 first, last; /* ports */
	__u8 protocol;
	__u8 unused;
};

/* A record is what is known of one address. Of one in use, only the bitmap changes. */
struct record {
	__u32 address[4]; /* as in the packet */
	__u8 family;	  /* 4 or 6 */
	__u8 swaps;	  /* the hash reads the source address in the other byte order (HashCompat) */
	__u8 mac[6];	  /* the shared MAC */
	__u32 initial;	  /* of jhash: its constant + the length + the seed */
	__u32 buckets;	  /* N */
	__u32 mask[4];	  /* the bits of the source address that the hash uses */
	__u16 source_ports; /* all bits, if the hash uses that port; else none */
	__u16 destination_ports;
	__u8 services; /* how many; 0: all services share load */
	__u8 icmp;     /* it shares load although there is a list of services */
	__u8 unused[10];
	__u32 passed[BITMAP_WORDS];
	struct service service[MAX_SERVICES];
};

/* What the agent has told clients. The program does not use it. */
struct told {
	__u64 connections, when, took;
};

/* A slot is of the remembered connection that used it last: its mark, and the numbers of the client's last segment. */
struct slot {
	__u32 mark;
	__u32 next;	/* the sequence number behind that segment */
	__u32 expected; /* its acknowledgment number */
	__u32 renewed;	/* in jiffies, when the map was told that the connection lives */
};

/* The table is one value of memory that the agent maps, and changes while packets are judged. */
struct table {
	__u32 version;
	__u32 made_qdisc; /* the program uses only what is below these three */
	__u32 next;
	__u32 unused[13];
	/* By a hash of the address, the numbers of up to four records, counted from 1; the lowest 16 bits first. */
	__u64 index[1 << INDEX_BITS];
	struct record record[RECORDS];
};

struct table table;

/* The memory of connections is apart, so that another version of it does not keep an agent from reading and changing the table. */
struct memory {
	__u32 version;
	__u32 remembers; /* connections at most; 0: none */
	__u32 unused[14];
	struct told told[RECORDS];
	/* By a hash of a connection. Connections that have the same place there take turns. The marks are apart, so that a flood of connections
	 * that only begin takes no slot from one that is remembered. */
	struct slot slot[1 << SLOT_BITS];
	__u32 mark[1 << MARK_BITS]; /* with the progress */
};

struct count {
	__u64 packets, bytes;
};

/* The map is defined as before BTF. */
struct map_definition {
	__u32 type, key_size, value_size, max_entries, flags;
};

/* A TCP connection, in network byte order. An IPv4 address is the last word. */
struct connection {
	__u32 client[4], address[4];
	__u16 client_port, port;
};

/* The agent decides how many connections it holds. */
struct map_definition SECTION("maps") clusterip_conns = {BPF_MAP_TYPE_LRU_HASH, sizeof(struct connection), 4, 1, 0};

struct map_definition SECTION("maps") clusterip_mem = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct memory), 1, BPF_F_MMAPABLE};

struct map_definition SECTION("maps") clusterip_drop = {BPF_MAP_TYPE_PERCPU_ARRAY, 4, sizeof(struct count), RECORDS, 0};

static void *(*map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)BPF_FUNC_map_update_elem;
static long (*map_delete_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_delete_elem;
static __u64 (*jiffies64)(void) = (void *)BPF_FUNC_jiffies64;
static long (*skb_pull_data)(struct __sk_buff *skb, __u32 len) = (void *)BPF_FUNC_skb_pull_data;
static __u64 (*xdp_get_buff_len)(struct xdp_md *ctx) = (void *)BPF_FUNC_xdp_get_buff_len;
/* bpf_xdp_metadata_rx_vlan_tag, from Linux 6.8 on. It is no helper: the loader puts the kernel's own number in place of this one. */
static int (*rx_vlan_tag)(struct xdp_md *ctx, __u16 *protocol, __u16 *tci) = (void *)0x0ffffff0;

struct ethernet {
	__u8 destination[6], source[6];
	__u16 type;
};

struct ipv4 {
	__u8 version_and_length, tos;
	__u16 total_length, id, fragment;
	__u8 ttl, protocol;
	__u16 checksum;
	__u32 source, destination;
};

struct ipv6 {
	__u32 version;
	__u16 payload_length;
	__u8 protocol, hop_limit;
	__u32 source[4], destination[4];
};

/* The first bytes behind the IP header: of TCP, UDP, UDP-Lite, SCTP and DCCP the ports, of ICMP type and code. */
union transport {
	struct {
		__u16 source, destination;
	} port;
	__u8 icmp_type;
};

struct tcp {
	__u16 source, destination;
	__u32 sequence, acknowledgment;
	__u8 offset, flags;
};

enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };

enum { IPV4 = 0x0800, IPV6 = 0x86dd };
enum { ICMP = 1, TCP = 6, UDP = 17, DCCP = 33, ICMPV6 = 58, SCTP = 132, UDPLITE = 136 };
enum { LINK = sizeof(struct ethernet), TRANSPORT = sizeof(union transport) };
enum { LONGEST = LINK + sizeof(struct ipv6) + TRANSPORT };
enum { LONGEST_TCP = LINK + sizeof(struct ipv6) + sizeof(struct tcp) };

/* Which program it is. All functions are inlined, so it is a constant. */
enum kind { XDP, XDP_TAGS, XDP_FRAGS, TC };

/* is_long_enough: a frame has that many bytes. Of a packet that is shorter than its header's length, nf_tables reads no ports. */
INLINE int is_long_enough(void *ctx, enum kind kind, void *data, void *end, __u32 bytes)
{
	if (kind == TC)
		return ((struct __sk_buff *)ctx)->len >= bytes;
	if (LIKELY((__u64)end - (__u64)data >= bytes))
		return 1;
	return (kind == XDP_FRAGS || kind == XDP_TAGS) && xdp_get_buff_len(ctx) >= bytes;
}

INLINE int has_ports(__u8 protocol)
{
	return protocol == TCP || protocol == UDP || protocol == SCTP || protocol == UDPLITE || protocol == DCCP;
}

/* is_for_all: ICMP errors pass on every node. So do echo replies (0): no node answers them, and doctor captures those of the router. */
INLINE int is_for_all(__u8 type)
{
	return type == 0 || type == 3 || type == 11 || type == 12;
}

/* is_for_all6: ICMPv6 errors, echo replies (129) and neighbour discovery. */
INLINE int is_for_all6(__u8 type)
{
	return (type >= 1 && type <= 4) || type == 129 || type == 135 || type == 136;
}

/* is_extension: a number of an IPv6 extension header (IANA), behind which the ports may be; and 59, behind which is nothing. */
INLINE int is_extension(__u8 protocol)
{
	switch (protocol) {
	case 0:
	case 43:
	case 44:
	case 50:
	case 51:
	case 59:
	case 60:
	case 135:
	case 139:
	case 140:
	case 253:
	case 254:
		return 1;
	default:
		return 0;
	}
}

INLINE __u32 rotate(__u32 word, int bits)
{
	return (word << bits) | (word >> (32 - bits));
}

struct state {
	__u32 a, b, c;
};

/* mix is __jhash_mix of include/linux/jhash.h, Bob Jenkins' lookup3. */
INLINE struct state mix(__u32 a, __u32 b, __u32 c)
{
	a -= c, a ^= rotate(c, 4), c += b;
	b -= a, b ^= rotate(a, 6), a += c;
	c -= b, c ^= rotate(b, 8), b += a;
	a -= c, a ^= rotate(c, 16), c += b;
	b -= a, b ^= rotate(a, 19), a += c;
	c -= b, c ^= rotate(b, 4), b += a;
	return (struct state){a, b, c};
}

/* final is __jhash_final. */
INLINE __u32 final(__u32 a, __u32 b, __u32 c)
{
	c ^= b, c -= rotate(b, 14);
	a ^= c, a -= rotate(c, 11);
	b ^= a, b -= rotate(a, 25);
	c ^= b, c -= rotate(b, 16);
	a ^= c, a -= rotate(c, 4);
	b ^= a, b -= rotate(a, 14);
	c ^= b, c -= rotate(b, 24);
	return c;
}

/* is_service: the packet is of a service that shares load. Everything else is bucket 0's. */
INLINE int is_service(const struct record *record, __u8 protocol, int is_icmp, __u16 port)
{
	if (is_icmp)
		return record->icmp;
	for (int i = 0; i < MAX_SERVICES && i < record->services; i++) {
		const struct service *service = &record->service[i];
		if (service->protocol == protocol && service->first <= port && port <= service->last)
			return 1;
	}
	return 0;
}

/* is_shared: the frame is for the shared MAC. A word behind two bytes is aligned as the IP header is. */
INLINE int is_shared(const struct record *record, const struct ethernet *frame)
{
	return *(__u32 *)(frame->destination + 2) == *(__u32 *)(record->mac + 2) && *(__u16 *)frame->destination == *(__u16 *)record->mac;
}

/* index_of: where a word, of which the address makes one, is in the index. */
INLINE __u32 index_of(__u32 word)
{
	return word * 0x9e3779b1 >> (32 - INDEX_BITS);
}

/* find4 returns the number of the record of an address; RECORDS: it has none. */
INLINE __u32 find4(__u32 address)
{
	__u64 numbers = table.index[index_of(address)];
	for (int i = 0; i < PER_INDEX && numbers; i++, numbers >>= 16) {
		__u32 number = (numbers - 1) & (RECORDS - 1);
		const struct record *record = &table.record[number];
		if (LIKELY(record->address[0] == address && record->family == 4))
			return number;
	}
	return RECORDS;
}

INLINE __u32 find6(const __u32 *address)
{
	__u64 numbers = table.index[index_of(address[0] ^ address[1] ^ address[2] ^ address[3])];
	for (int i = 0; i < PER_INDEX && numbers; i++, numbers >>= 16) {
		__u32 number = (numbers - 1) & (RECORDS - 1);
		const struct record *record = &table.record[number];
		if (LIKELY(record->address[3] == address[3] && record->address[2] == address[2] && record->address[1] == address[1] &&
			   record->address[0] == address[0] && record->family == 6))
			return number;
	}
	return RECORDS;
}

INLINE int passes(const struct record *record, __u32 bucket)
{
	return record->passed[(bucket >> 5) & (BITMAP_WORDS - 1)] >> (bucket & 31) & 1;
}

/* is_foreign judges a packet of which everything else is known. Ports that the hash does not use, or that a packet lacks, are words of 0,
 * which add nothing: the same hash as without them and with another length (clusterip.PortlessSeed). */
INLINE int is_foreign(const struct record *record, __u32 a, __u32 b, __u32 c, __u8 protocol, int is_icmp, __u16 port)
{
	int passes_hashed = passes(record, (__u64)final(a, b, c) * record->buckets >> 32);
	if (record->services == 0 || passes_hashed == passes(record, 0))
		return !passes_hashed;
	if (record->services == TOO_MANY_SERVICES)
		return 0;
	return is_service(record, protocol, is_icmp, port) != passes_hashed;
}

/* is_tagged: the interface has taken the tag of another VLAN off the frame. The VLAN 0 is only a priority. */
INLINE int is_tagged(struct xdp_md *ctx)
{
	__u16 protocol, tci = 0;

	return rx_vlan_tag(ctx, &protocol, &tci) == 0 && (tci & 0x0fff);
}

/* A connection's progress, in the lowest bits of its mark. */
enum { BEGUN = 1, REMEMBERED = 2, ENDED = 3, PROGRESS = 3 };

/* How often the map is told that a connection lives, so that it forgets others first: every 16 s (HZ=1000) to 3 minutes (HZ=100). */
enum { RENEW = 1 << 14 };

/* note keeps the numbers of a segment of that length. The agent takes them for those of the connection whose mark the slot has. */
INLINE void note(struct slot *slot, const struct tcp *tcp, __u32 length)
{
	slot->next = NETWORK32(tcp->sequence) + length - (tcp->offset >> 4) * 4;
	slot->expected = NETWORK32(tcp->acknowledgment);
}

/* scatter is fmix64, the finalizer of Austin Appleby's MurmurHash3: different words have different results. */
INLINE __u64 scatter(__u64 word)
{
	word = (word ^ word >> 33) * 0xff51afd7ed558ccd;
	word = (word ^ word >> 33) * 0xc4ceb9fe1a85ec53;
	return word ^ word >> 33;
}

/* remember keeps track of a connection by a client's segment. Its first segment only leaves a mark, so a flood of them fills nothing else:
 * the connection is remembered when another one finds that mark. It is so too if this node has not seen its beginning. */
INLINE void remember(
	void *ctx, enum kind kind, const struct tcp *tcp, __u32 length, const __u32 *client, const __u32 *address, int words
)
{
	__u32 client_word = client[words - 1], address_word = address[words - 1], first = 0, mark, *progress;
	int begins = tcp->flags & SYN, ends = tcp->flags & (RST | FIN);
	struct memory *memory = map_lookup_elem(&clusterip_mem, &first);
	struct slot *slot;
	__u64 hash;

	if (!memory || !memory->remembers)
		return;
	if (words == 4) {
		client_word ^= rotate(client[0], 7) ^ rotate(client[1], 13) ^ rotate(client[2], 19);
		address_word ^= address[0] ^ address[1] ^ address[2];
	}
	hash = scatter((__u64)(client_word ^ rotate(address_word, 16)) << 32 | ((__u32)tcp->source << 16 | tcp->destination));
	slot = &memory->slot[hash >> (64 - SLOT_BITS)];
	mark = (__u32)hash & ~PROGRESS;
	if (LIKELY(slot->mark == (mark | REMEMBERED) && !begins && !ends)) {
		note(slot, tcp, length);
		if (LIKELY((__u32)jiffies64() - slot->renewed < RENEW))
			return;
	} else {
		progress = &memory->mark[hash >> (64 - SLOT_BITS - MARK_BITS) & ((1 << MARK_BITS) - 1)];
		if (ends) {
			*progress = mark | ENDED;
			if (slot->mark == (mark | REMEMBERED))
				slot->mark = 0;
		} else if (begins || *progress != (mark | BEGUN)) {
			if (begins || *progress != (mark | ENDED))
				*progress = mark | BEGUN;
			return;
		}
	}
	if (kind == XDP_TAGS && is_tagged(ctx))
		return;
	struct connection connection = {.client_port = tcp->source, .port = tcp->destination};
	for (int i = 0; i < words; i++) {
		connection.client[4 - words + i] = client[i];
		connection.address[4 - words + i] = address[i];
	}
	if (ends) {
		map_delete_elem(&clusterip_conns, &connection);
		return;
	}
	slot->mark = mark | REMEMBERED;
	slot->renewed = jiffies64();
	note(slot, tcp, length);
	if (!map_lookup_elem(&clusterip_conns, &connection)) { /* which also tells the map that it lives */
		__u32 nothing = 0;

		map_update_elem(&clusterip_conns, &connection, &nothing, BPF_ANY);
	}
}

/* foreign4 returns the number of the record by which an IPv4 packet is foreign; RECORDS: it passes. The packet is known to reach to the
 * first bytes behind a header without options. */
INLINE __u32 foreign4(void *ctx, enum kind kind, void *data, void *end)
{
	struct ipv4 *packet = data + LINK;
	union transport *transport = data + LINK + sizeof(*packet);
	__u32 number = find4(packet->destination), length = NETWORK16(packet->total_length);
	__u32 source, ports = 0, destination_port = 0;
	const struct record *record;
	__u8 protocol = packet->protocol;

	if (number >= RECORDS)
		return RECORDS;
	record = &table.record[number];
	if (!is_shared(record, data))
		return RECORDS;
	/* version 4, no options; no fragment: the offset and the flag for more fragments */
	if (packet->version_and_length != 0x45 || packet->fragment & NETWORK16(0x3fff))
		return RECORDS;
	if (length < sizeof(*packet) + TRANSPORT || !is_long_enough(ctx, kind, data, end, LINK + length))
		return RECORDS;
	if (has_ports(protocol)) {
		ports = transport->port.source;
		destination_port = transport->port.destination;
		if (protocol == TCP && (void *)transport + sizeof(struct tcp) <= end)
			remember(ctx, kind, (void *)transport, length - sizeof(*packet), &packet->source, &packet->destination, 1);
	} else if (protocol == ICMP && is_for_all(transport->icmp_type)) {
		return RECORDS;
	}
	source = packet->source & record->mask[0];
	if (record->swaps)
		source = __builtin_bswap32(source);
	if (!is_foreign(record, record->initial + source, record->initial + FIRST16(ports & record->source_ports),
			record->initial + FIRST16(destination_port & record->destination_ports), protocol, protocol == ICMP,
			NETWORK16(destination_port)))
		return RECORDS;
	return number;
}

/* foreign6 does the same for IPv6, without extension headers. */
INLINE __u32 foreign6(void *ctx, enum kind kind, void *data, void *end)
{
	struct ipv6 *packet = data + LINK;
	union transport *transport = data + LINK + sizeof(*packet);
	__u32 number, length, ports = 0, destination_port = 0;
	const struct record *record;
	struct state mixed;
	__u8 protocol;

	if (data + LONGEST > end)
		return RECORDS;
	number = find6(packet->destination);
	if (number >= RECORDS)
		return RECORDS;
	record = &table.record[number];
	if (!is_shared(record, data))
		return RECORDS;
	length = NETWORK16(packet->payload_length);
	if ((packet->version & NETWORK32(0xf0000000)) != NETWORK32(0x60000000) || length < TRANSPORT ||
	    !is_long_enough(ctx, kind, data, end, LINK + sizeof(*packet) + length))
		return RECORDS;
	protocol = packet->protocol;
	if (has_ports(protocol)) {
		ports = transport->port.source;
		destination_port = transport->port.destination;
		if (protocol == TCP && (void *)transport + sizeof(struct tcp) <= end)
			remember(ctx, kind, (void *)transport, length, packet->source, packet->destination, 4);
	} else if (protocol == ICMPV6 ? is_for_all6(transport->icmp_type) : is_extension(protocol)) {
		return RECORDS;
	}
	mixed = mix(record->initial + (packet->source[0] & record->mask[0]), record->initial + (packet->source[1] & record->mask[1]),
		    record->initial + (packet->source[2] & record->mask[2]));
	if (!is_foreign(record, mixed.a + (packet->source[3] & record->mask[3]), mixed.b + FIRST16(ports & record->source_ports),
			mixed.c + FIRST16(destination_port & record->destination_ports), protocol, protocol == ICMPV6,
			NETWORK16(destination_port)))
		return RECORDS;
	return number;
}

/* judge returns whether to drop a packet, and counts it then. */
INLINE int judge(void *ctx, enum kind kind, void *data, void *end)
{
	struct ethernet *frame = data;
	struct count *count;
	__u32 number;

	if (data + LINK + sizeof(struct ipv4) + TRANSPORT > end)
		return 0;
	if (frame->type == NETWORK16(IPV4))
		number = foreign4(ctx, kind, data, end);
	else if (frame->type == NETWORK16(IPV6))
		number = foreign6(ctx, kind, data, end);
	else
		return 0;
	if (number >= RECORDS || (kind == XDP_TAGS && is_tagged(ctx)))
		return 0;
	count = map_lookup_elem(&clusterip_drop, &number);
	if (count) {
		count->packets++;
		/* As nf_tables counts at ingress: without the Ethernet header. Of a frame in several buffers, only the first. */
		count->bytes += (kind == TC ? ((struct __sk_buff *)ctx)->len : (__u64)end - (__u64)data) - LINK;
	}
	return 1;
}

INLINE int xdp(struct xdp_md *ctx, enum kind kind)
{
	return judge(ctx, kind, (void *)(long)ctx->data, (void *)(long)ctx->data_end) ? XDP_DROP : XDP_PASS;
}

SECTION("xdp") int clusterip_xdp(struct xdp_md *ctx)
{
	return xdp(ctx, XDP);
}

/* For interfaces that take VLAN tags off the frames, and show them to XDP programs (Linux 6.8). */
SECTION("xdp_tags") int clusterip_xdpt(struct xdp_md *ctx)
{
	return xdp(ctx, XDP_TAGS);
}

/* For frames in several buffers, from Linux 5.18 on. */
SECTION("xdp.frags") int clusterip_xdpf(struct xdp_md *ctx)
{
	return xdp(ctx, XDP_FRAGS);
}

/* Other programs and filters follow what passes: TC_ACT_UNSPEC, TCX_NEXT. */
enum { TC_PASS = -1, TC_DROP = 2 };

SECTION("tc") int clusterip_tc(struct __sk_buff *skb)
{
	void *data, *end;

	/* The tag of another VLAN than the interface's own. The VLAN 0 is only a priority. */
	if (UNLIKELY(skb->vlan_present && (skb->vlan_tci & 0x0fff)))
		return TC_PASS;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (UNLIKELY(data + LONGEST_TCP > end && (skb->len >= LONGEST_TCP || data + LONGEST > end))) {
		if (skb_pull_data(skb, skb->len < LONGEST_TCP ? skb->len : LONGEST_TCP))
			return TC_PASS;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
	}
	return judge(skb, TC, data, end) ? TC_DROP : TC_PASS;
}

SECTION("license") char _license[] = "Apache-2.0";

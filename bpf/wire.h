/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What crosses between the kernel programs and user space, written down once.
 *
 * src/ecapture/_wire.py is generated from this header (through the BTF of wire.bpf.o); nothing else may know a layout.
 * Rules: fixed-width members, largest alignment first, padding spelt out, variable data last, no pointers, no bool.
 * A change here is a change of the recording format: raise EC_WIRE_VERSION.
 */
#ifndef EC_WIRE_H
#define EC_WIRE_H

#include <linux/types.h>

enum ec_constants {
	EC_WIRE_VERSION = 3,
	EC_COMM_LENGTH = 16,	   /* TASK_COMM_LEN */
	EC_ADDRESS_LENGTH = 16,	   /* an IPv6 address; IPv4 uses the first four bytes */
	EC_PIECE_MAXIMUM = 16384,  /* payload of one record: the plaintext of a whole TLS record (RFC 8446, 5.1) */
	EC_HOOKS_MAXIMUM = 128,   /* rows in the table of hooks; the attach cookie is the index */
	EC_HOOK_HALF = 255,	   /* instead of a row: one direction alone, whose other one has the same socket */
	EC_PLAIN_SLOTS = 40,	   /* hooks that kernels without attach cookies (before 5.15) can tell apart */
	EC_CGROUPS_MAXIMUM = 16,   /* cgroups that can be selected at once */
	EC_SECRET_ROWS = 1024,	   /* files whose keys are read; the attach cookie of those hooks is the row */
	EC_SECRET_SLOTS = 8,	   /* such files that kernels without attach cookies can tell apart */
	EC_TOLD_ROWS = 2048,	   /* ways in which files tell a secret together with its client random */
	EC_OPERAND_CONSTANT = 255, /* instead of a register: the number itself */
	EC_LABEL_PLACES = 16,	   /* places of label strings that are known of one file */
	EC_RANDOM_LENGTH = 32,	   /* of a ClientHello (RFC 8446, 4.1.2) */
	EC_SECRET_MAXIMUM = 64,	   /* EVP_MAX_MD_SIZE; secrets have 32 or 48 bytes */
	EC_LABEL_LENGTH = 32,	   /* the longest label has 31 characters */
	EC_SCHEDULE_LENGTH = 576,  /* nine secrets, side by side */
	EC_PARAMETER_ROWS = 256,   /* ways of libraries to keep version and cipher; row 0: not known */
	EC_SNAP_MAXIMUM = 262144,  /* of one packet, as in libpcap (MAXIMUM_SNAPLEN); no kernel makes larger ones */
	EC_OWNER_OPTIONS = 72,	   /* a comment of at most 36 bytes and a custom option of 36, heads included */
	EC_ENTERPRISE = 32473,	   /* owner of our custom options: formats/pcapng.py */
	EC_INTERFACES_MAXIMUM = 4096, /* interfaces that one capture can see, those that are gone included */
	EC_SERVER_ROWS = 64,	   /* builds of mysqld whose sessions are read at once; the attach cookie is the row */
	EC_SERVER_NAME = 128,	   /* of a user or host: 32 characters (MySQL), 128 (MariaDB); longer ones are marked */
	EC_SERVER_DATABASE = 256,  /* 64 characters of up to four bytes */
	EC_STATEMENT_LIMIT = 65536, /* bytes kept of a statement where settings.payload_limit asks for no other limit */
	EC_STATEMENT_PIECES = 64,  /* pieces of a statement at most: 1 MiB */
	EC_SHELL_ROWS = 64,	   /* shells that are hooked; the attach cookie of their hooks is the row */
	EC_TERMINAL_LENGTH = 32,   /* of the name of a terminal */
	EC_SHELL_PIECE = 16384,  /* text of a shell's command in one record */
	EC_SHELL_LIMIT = 65536,  /* what is kept of one command unless settings.payload_limit says otherwise, */
	EC_SHELL_MAXIMUM = 1048576, /* and what is kept at most */
};

enum ec_kind {
	EC_KIND_PLAINTEXT = 1, /* bytes that a program read or wrote */
	EC_KIND_END = 2,       /* a conversation ended: the library freed or cleared its object */
	EC_KIND_EXIT = 3,      /* a process that had conversations ended */
	EC_KIND_SECRET = 4,    /* a secret of the kind that key logs have */
	EC_KIND_SCHEDULE = 5,  /* what OpenSSL keeps of the key schedule of an established connection */
	EC_KIND_ENDS = 6,      /* between whom a conversation is held: learned after some of it was told */
	EC_KIND_COMMAND = 20,   /* a server of the MySQL family begins with a command of a client's */
	EC_KIND_COMMAND_TEXT = 21, /* bytes that belong to a command */
	EC_KIND_COMMAND_END = 22,  /* how a command ended */
	EC_KIND_SERVED = 7,    /* messages between a PostgreSQL server and its client */
	EC_KIND_SHELL_BEGIN = 16, /* a shell takes a command: who, where */
	EC_KIND_SHELL_TEXT = 17,  /* a piece of what it was given */
	EC_KIND_SHELL_END = 18,	  /* how the command ended */
};

enum ec_direction {
	EC_READ = 0,
	EC_WRITE = 1,
};

enum ec_flag {
	EC_FLAG_FAULT = 1 << 0,	    /* the payload could not be read from the program's memory */
	EC_FLAG_TRUNCATED = 1 << 1, /* the limit of settings.payload_limit cut the call here */
	EC_FLAG_SENDFILE = 1 << 2,  /* the bytes came from a file and never were in the program's memory */
	EC_FLAG_ASSUMED = 1 << 3,   /* taken at entry: the call may have failed or been partial */
	EC_FLAG_LAST = 1 << 4,	    /* the last piece of its call */
	EC_FLAG_UNJOINED = 1 << 5,  /* a secret whose client random is not known */
	EC_FLAG_BOUNDARY = 1 << 6,  /* a message begins with the first byte; what was begun before had no more kept */
};

/* Where the 4-tuple of a conversation comes from, or why there is none. */
enum ec_tuple_source {
	EC_TUPLE_NONE = 0,	  /* no descriptor known and no socket call seen inside a TLS call yet */
	EC_TUPLE_DESCRIPTOR = 1,  /* through the file table, from the fd the library was given */
	EC_TUPLE_NESTED_CALL = 2, /* from the socket call that the library made inside the TLS call */
	EC_TUPLE_NOT_INET = 3,	  /* the descriptor is not an IPv4 or IPv6 socket */
	EC_TUPLE_UNREADABLE = 4,  /* this kernel shows no types (BTF), so its sockets cannot be read */
	EC_TUPLE_INFERRED = 5,	  /* from the socket call of the thread that carries what the TLS call made */
	EC_TUPLE_UNIX = 6,	  /* the descriptor is a Unix-domain socket */
};

enum ec_family {
	EC_FAMILY_NONE = 0,
	EC_FAMILY_UNIX = 1,
	EC_FAMILY_IPV4 = 2,
	EC_FAMILY_IPV6 = 10,
};

/* What one call looks like: which argument is what. Index into the array "hooks". */
enum ec_length {
	EC_LENGTH_RETURNED = 0,	  /* int f(...): the length is what is returned, if positive */
	EC_LENGTH_POINTED = 1,	  /* int f(..., size_t *length): *length, if 1 is returned */
	EC_LENGTH_RETURNED64 = 2, /* ssize_t f(...): as the first, 64 bits wide */
	EC_LENGTH_ARGUMENT = 3,	  /* taken at entry from the argument: where return probes are unsafe */
	EC_LENGTH_SPAN = 4,	  /* int f(..., struct { void *start; size_t size; } *): what it tells, if 0 is returned */
};

/* The family of calls that a hook belongs to. */
enum ec_shape {
	EC_SHAPE_PLAINTEXT = 0,	 /* a handle, a buffer and a length: read or write */
	EC_SHAPE_DESCRIPTOR = 1, /* the library is told its file descriptor: (handle, fd) */
	EC_SHAPE_END = 2,	 /* the handle ceases to stand for its conversation: (handle) */
	EC_SHAPE_SECRET = 3,	 /* a secret is told: (handle, label, secret, length) */
	EC_SHAPE_MASTER = 4,	 /* a master secret is made: (handle, output, ...) */
	EC_SHAPE_KEPT = 5,	 /* any call with the handle, to read the secrets that it keeps */
	/* Go's crypto/tls, arguments in registers */
	EC_SHAPE_GO_READ = 6,
	EC_SHAPE_GO_WRITE = 7,
	EC_SHAPE_GO_END = 8,
	/* the same with arguments on the stack */
	EC_SHAPE_GO_STACK_READ = 9,
	EC_SHAPE_GO_STACK_WRITE = 10,
	EC_SHAPE_GO_STACK_END = 11,
	EC_SHAPE_COVER = 12,	 /* sends again what was shown: calls inside it with the same handle are not shown */
	EC_SHAPE_NSS_SECRET = 13, /* a secret is told as a key of NSS: (handle, label, key) */
	EC_SHAPE_NSS_VALUE = 14,  /* an object of softoken gets its bytes: (object, attribute, bytes, length) */
	EC_SHAPE_PACKET = 30,	 /* a packet is read: (handle, pointer to the packet); the bytes stay in it, */
	EC_SHAPE_PACKET_GET = 31, /* until they are asked for: (packet, pointer to where they are and how many) */
	EC_SHAPE_BEGIN = 15,	 /* what is returned is a new handle: an earlier conversation of it has ended */
	EC_SHAPE_TOLD = 16,	 /* a secret is told together with its client random */
	EC_SHAPE_RUST_ENCRYPT = 32, /* methods of rustls, see rustls.bpf.c */
	EC_SHAPE_RUST_DECRYPT = 33, /* of TLS 1.3 */
	EC_SHAPE_RUST_DECRYPT_OLDER = 34, /* of TLS 1.2 */
	/* servers of the MySQL family; the number of the argument that a value stands in is part of the shape */
	EC_SHAPE_DISPATCH = 40,	     /* a session's thread carries out one command */
	EC_SHAPE_LOGIN = 41,	     /* a session proves who it is: (session, ...) */
	EC_SHAPE_SESSION_END = 42,   /* a session is over: (session, ...) */
	EC_SHAPE_ANSWER_OK = 43,     /* (protocol, status, warnings, affected, last id, message) */
	EC_SHAPE_ANSWER_OK_OF = 44,  /* (protocol, session, status, warnings, affected, last id, message, ...) */
	EC_SHAPE_ANSWER_ERROR = 45,  /* (protocol, number, message, ...) */
	EC_SHAPE_ANSWER_ERROR_OF = 46, /* (protocol, session, number, message, ...) */
	EC_SHAPE_ANSWER_END = 47,    /* the end of rows: (protocol, ...) */
	EC_SHAPE_PREPARED_ANSWER = 48, /* (protocol, statement id, ...) */
	EC_SHAPE_ANSWER_OK_MARKED = 50, /* as ANSWER_OK_OF, and then whether it only ends rows */
	EC_SHAPE_PREPARED_OBJECT = 49, /* (statement, lex, memory, state, statement id) */
	/* ssize_t f(Port *, void *buffer, size_t length) of a PostgreSQL server */
	EC_SHAPE_SERVED_READ = 17,
	EC_SHAPE_SERVED_WRITE = 18,
	EC_SHAPE_SERVED_INNER_READ = 19, /* called by the first, which may have been entered before we came */
	/* shells: bash's functions are told in shell.bpf.c */
	EC_SHAPE_SHELL_READ = 64,     /* the next command is going to be read: () */
	EC_SHAPE_SHELL_PARSED = 65,   /* returns 0 if there is one */
	EC_SHAPE_SHELL_LINE = 66,     /* returns a line that was typed */
	EC_SHAPE_SHELL_EXPAND = 67,   /* a line is going to be expanded: (line) */
	EC_SHAPE_SHELL_EXPANDED = 68, /* returns it, expanded */
	EC_SHAPE_SHELL_TAKEN = 69,    /* a command was read, and will be run if it is one: (program) */
	EC_SHAPE_SHELL_STRING = 70,   /* a text is executed: (text, ..., context) */
	EC_SHAPE_SHELL_STRUNG = 71,   /* its end */
	EC_SHAPE_SHELL_STEP = 72,     /* a simple command was printed into a variable and will be run */
	EC_SHAPE_SHELL_EXECUTE = 73,  /* any command is executed: (command, background, pipe in, pipe out, ...) */
	EC_SHAPE_SHELL_EXECUTED = 74, /* returns its status */
	/* those of dash and busybox are told in ash.bpf.c */
	EC_SHAPE_SHELL_ASH_READ = 75,	/* a command is going to be read: (typed) */
	EC_SHAPE_SHELL_ASH_PARSED = 76, /* returns it */
	EC_SHAPE_SHELL_ASH_LINE = 77,	/* not a function but its return: a line was read */
	EC_SHAPE_SHELL_ASH_LOOPED = 78, /* returns when a file was read */
	/* fish's in fish.bpf.c */
	EC_SHAPE_SHELL_FISH_RUN = 79,	 /* a command is going to be run: a function, or where one is called */
	EC_SHAPE_SHELL_FISH_RAN = 80,	 /* not a function but the instruction behind that call */
	EC_SHAPE_SHELL_FISH_RETURNED = 81, /* returns when it was run */
	EC_SHAPE_SHELL_FISH_STATUS = 82, /* $status becomes what the second argument points to: (environment, status) */
	EC_SHAPE_SHELL_FISH_NEXT = 83,	 /* not a function but an instruction: another line is going to be read */
};

/* How a session's thread is handed a command. */
enum ec_dispatch {
	EC_DISPATCH_ANY = 0,	/* told by which argument is a small number */
	EC_DISPATCH_PACKET = 1, /* (command, session, bytes, length): MySQL to 5.6, MariaDB */
	EC_DISPATCH_PARSED = 2, /* (session, COM_DATA *, command): MySQL since 5.7 */
};

/* What the bytes of an EC_KIND_COMMAND_TEXT are. */
enum ec_text_role {
	EC_TEXT_STATEMENT = 0, /* what the client sent as the command's text */
	EC_TEXT_EXECUTED = 1,  /* what the session says that it executes */
	EC_TEXT_PACKET = 2,    /* the rest of the packet that executes a prepared statement */
	EC_TEXT_MESSAGE = 3,   /* of an error */
};

/* What is known of a command or of its session. */
enum ec_command_flag {
	EC_COMMAND_ANSWERED = 1 << 0,	    /* the client was sent an outcome */
	EC_COMMAND_CLOSES = 1 << 1,	    /* the server then closed the session */
	EC_COMMAND_HAS_CONNECTION = 1 << 2, /* the server's number of the session was read */
	EC_COMMAND_HAS_ROWS = 1 << 3,	    /* the number of rows sent was read */
	EC_COMMAND_HAS_STATEMENT = 1 << 4,  /* the number of the prepared statement is known */
	EC_COMMAND_USER_CUT = 1 << 5,	    /* the name is longer than its field */
	EC_COMMAND_HOST_CUT = 1 << 6,
	EC_COMMAND_DATABASE_CUT = 1 << 7,
	EC_COMMAND_USER_UNREAD = 1 << 8, /* where it stands is known, but the memory could not be read */
	EC_COMMAND_HOST_UNREAD = 1 << 9,
	EC_COMMAND_DATABASE_UNREAD = 1 << 10,
	EC_COMMAND_HAS_AFFECTED = 1 << 11, /* there was an answer that tells affected rows */
	EC_COMMAND_REFUSED = 1 << 12,	   /* a log-in that failed; its error is sent a little later */
};

/* The labels of secrets, as key logs have them. */
enum ec_label {
	EC_LABEL_UNKNOWN = 0,
	EC_LABEL_CLIENT_RANDOM = 1,
	EC_LABEL_CLIENT_EARLY_TRAFFIC_SECRET = 2,
	EC_LABEL_CLIENT_HANDSHAKE_TRAFFIC_SECRET = 3,
	EC_LABEL_SERVER_HANDSHAKE_TRAFFIC_SECRET = 4,
	EC_LABEL_CLIENT_TRAFFIC_SECRET_0 = 5,
	EC_LABEL_SERVER_TRAFFIC_SECRET_0 = 6,
	EC_LABEL_EXPORTER_SECRET = 7,
	EC_LABEL_EARLY_EXPORTER_SECRET = 8,
};

/* Where a shell has a command from. */
enum ec_origin {
	EC_ORIGIN_TYPED = 0,   /* by a person, or what pretends to be one */
	EC_ORIGIN_STRING = 1,  /* the argument of -c */
	EC_ORIGIN_SCRIPT = 2,  /* a file that it was started with */
	EC_ORIGIN_SOURCED = 3, /* a file that it reads on the way */
	EC_ORIGIN_INPUT = 4,   /* its standard input */
};

/* What a piece of text is. */
enum ec_form {
	EC_FORM_GIVEN = 0,    /* as it was typed, or as the shell prints it */
	EC_FORM_EXPANDED = 1, /* the line that takes the place of the one before: history was expanded */
	EC_FORM_REFUSED = 2,  /* the line before is not used: its history could not be expanded */
	EC_FORM_WHOLE = 3,    /* what takes the place of all lines: the command with its history expanded */
};

enum ec_encoding {
	EC_ENCODING_PLAIN = 0,
	EC_ENCODING_META = 1, /* zsh: 0x83 stands before a byte whose bit 0x20 is flipped (Src/utils.c, metafy) */
	EC_ENCODING_WORDCODE = 2, /* zsh: what it parsed: in line 0 its struct eprog, in line 1 words and strings */
	EC_ENCODING_READ = 3, /* a line with its line feed, if it has one */
	EC_ENCODING_WIDE = 4, /* fish: characters of four bytes in the machine's order */
};

/* fish: how the text of a command is handed to what runs it. */
enum ec_wide_text {
	EC_WIDE_STRING = 1, /* the second argument points to a pointer to it, and its length */
	EC_WIDE_SLICE = 2,  /* the third argument points to it, the fourth is its length */
};

/* fish: where what ran a command leaves its status, as wait() would tell it. */
enum ec_wide_status {
	EC_STATUS_RETURNED = 1, /* the low half of the result; the next byte is not 0 if there is none */
	EC_STATUS_PACKED = 2,	/* likewise, in what the first argument points to */
	EC_STATUS_OPTION = 3,	/* the high half of what the first argument points to; the low half is 0 if there is none */
	EC_STATUS_SET = 4,	/* nowhere: it is what it was set to last */
};

/* How a command ended. */
enum ec_ending {
	EC_ENDING_RETURNED = 0,
	EC_ENDING_EXITED = 1,	 /* with its shell */
	EC_ENDING_KILLED = 2,	 /* its shell was, by the signal in status */
	EC_ENDING_REPLACED = 3,	 /* its shell became another program: exec */
	EC_ENDING_NOT_RUN = 4,	 /* it was refused, or is none */
	EC_ENDING_ABANDONED = 5, /* before it was complete */
	EC_ENDING_LEFT = 6,	 /* it runs beside its shell: in the background or in a pipeline */
};

enum ec_hook_flag {
	EC_HOOK_NO_BUFFER = 1 << 0, /* sendfile: only the length can be told */
	EC_HOOK_WIDE = 1 << 1,	    /* the length argument is 64 bits wide (size_t), else int */
	EC_HOOK_KEEPS = 1 << 2,	    /* an end after which the handle goes on, with its descriptor: SSL_clear */
	EC_HOOK_PEEKS = 1 << 3,	    /* the fourth argument has flags; a call with MSG_PEEK only looks */
};

struct ec_hook {
	__u8 direction;	      /* enum ec_direction */
	__u8 handle;	      /* argument numbers, from 0 */
	__u8 buffer;
	__u8 length;	      /* the argument that has (or points at) the length */
	__u8 length_kind;     /* enum ec_length */
	__u8 flags;	      /* enum ec_hook_flag */
	__u8 shape;	      /* enum ec_shape */
	__u8 _padding;
};

/* How to walk from a handle to a field: load a pointer at each offset but the last. A count of 0: not known. */
struct ec_chain {
	__u16 first;
	__u16 second;
	__u16 third;
	__u16 fourth;
	__u16 count;
};

/* Where a library keeps what was negotiated. Index into the array "parameter_rows"; row 0 is empty. */
struct ec_parameter_row {
	struct ec_chain version;
	struct ec_chain cipher;
	struct ec_chain object_type; /* as in ec_secret_row */
};

/* Where the secrets of one library stand in its objects. Index into the array "secret_rows". */
struct ec_secret_row {
	struct ec_chain client_random;
	struct ec_chain master_key;
	struct ec_chain schedule; /* from the handshake secret to the server's application secret */
	struct ec_chain exporter;
	struct ec_chain version;
	struct ec_chain object_type; /* where there is one, only an object of type 0 is a TLS connection */
	struct ec_chain handshake_state;
	struct ec_chain in_init;
	__u16 finished_state;			/* handshake_state once the handshake is over */
	__u16 label_place[EC_LABEL_PLACES];	/* where in its page a label's text begins, and */
	__u8 label_number[EC_LABEL_PLACES];	/* which (enum ec_label): for text that cannot be read */
};

/*
 * A value in a probed thread. A register, by its place among the saved ones; for each load the word so many bytes
 * behind; then the next number is added.
 */
struct ec_operand {
	__s32 first;
	__s32 second;
	__s32 third;
	__u8 word;  /* of struct pt_regs, or EC_OPERAND_CONSTANT */
	__u8 loads; /* at most two */
	__u8 _padding[2];
};

/* Where a probed instruction finds the parts of a secret. Index into the array "told_rows". */
struct ec_told_row {
	struct ec_operand label;
	struct ec_operand label_length;
	struct ec_operand random;
	struct ec_operand random_length;
	struct ec_operand secret;
	struct ec_operand secret_length;
	__u16 label_place[EC_LABEL_PLACES]; /* as in struct ec_secret_row */
	__u8 label_number[EC_LABEL_PLACES];
};

/*
 * Where a value stands in a session's object. A number of "size" bytes, or a pointer to text: text of size 0 ends with a
 * NUL, with size 8 its length follows the pointer.
 */
struct ec_walk {
	struct ec_chain chain;
	__u16 size;
};

/* Where one build of a server keeps what is told of its sessions. Index into the array "server_rows". */
struct ec_server_row {
	struct ec_walk connection; /* the server's number of the session */
	struct ec_walk user;
	struct ec_walk host; /* the client's name, or if there is none */
	struct ec_walk address;
	struct ec_walk database;
	struct ec_walk executed; /* the text that is being executed */
	struct ec_walk rows;	 /* rows sent to the client by the present statement */
	__u16 dispatch;		 /* enum ec_dispatch */
};

/* The filter and limits, one row in the array "settings"; changed while running. */
struct ec_settings {
	__u64 payload_limit; /* bytes kept of one call; all ones: no limit */
	__u64 wakeup_level;  /* fill of the ring in bytes at which a record wakes the reader */
	__u32 by_pid;	     /* not 0: only processes in the map "pids" */
	__u32 by_uid;	     /* not 0: only users in the map "uids" */
	__u32 by_comm;	     /* not 0: only command names in the map "comms" */
	__u32 cgroup_count;  /* not 0: only tasks under one of that many cgroups in the map "cgroups" */
	__u32 follow;	     /* not 0: children of processes in "pids" join it */
	__u32 excluded_pid;  /* this process is never captured: our own */
	__u32 reader_asleep; /* the reader waits for a wake-up: set by it, cleared by the record that wakes it */
	__u32 text_limit;    /* bytes kept of one text, such as a statement to a database */
};

/* Both ends of a conversation, and what they agreed on. Ports in host byte order. 44 bytes: compared and cached as one
 * value. */
struct ec_tuple_value {
	__u8 local[EC_ADDRESS_LENGTH];
	__u8 remote[EC_ADDRESS_LENGTH];
	__u16 local_port;
	__u16 remote_port;
	__u16 family; /* enum ec_family */
	__u16 source; /* enum ec_tuple_source */
	__u16 version; /* of TLS, as its library numbers it; 0: not known */
	__u16 cipher;  /* cipher suite as on the wire (RFC 8446, B.4); 0: not known */
};

/* Every record begins so. 48 bytes. */
struct ec_header {
	__u64 time_ns;	/* boot clock: CLOCK_BOOTTIME */
	__u32 size;	/* of the whole record, this header included, without trailing alignment */
	__u16 kind;	/* enum ec_kind */
	__u16 flags;	/* enum ec_flag */
	__u32 pid;	/* the kernel's tgid */
	__u32 tid;	/* the kernel's pid */
	__u32 uid;
	__u32 cpu;
	__u8 comm[EC_COMM_LENGTH];
};

/* One piece of one call. The payload follows. 144 bytes. */
struct ec_plaintext {
	struct ec_header header;
	__u64 handle;	     /* the library's connection object */
	__u64 generation;    /* when this conversation was first seen: tells reuses of a handle apart */
	__u64 stream_offset; /* bytes of this direction before this piece; a gap is a loss */
	__u64 call_length;   /* bytes of the whole call */
	__u64 call_offset;   /* where in the call this piece stands */
	struct ec_tuple_value tuple;
	__s32 fd;	/* -1: not known */
	__u8 direction; /* enum ec_direction */
	__u8 hook;	/* row in "hooks", or EC_HOOK_HALF */
	__u8 _padding[6];
};

/*
 * A run of bytes of the messages between a PostgreSQL server and its client, as the server's process handles them. Not
 * all are kept: rows and passwords are left out, and what goes beyond settings.text_limit. The bytes follow. 112 bytes.
 */
struct ec_served {
	struct ec_header header; /* of what is read, the time of arrival; of what is written, when it was handed over */
	__u64 generation;	 /* when this process was first seen */
	__u64 kept_offset;	 /* bytes of this direction that were kept before these; a gap is a loss */
	struct ec_tuple_value tuple;
	__u8 direction; /* enum ec_direction */
	__u8 late;	/* not 0: the session was there before we were */
	__u8 _padding[2];
};

/* A conversation ended. 64 bytes. */
struct ec_end {
	struct ec_header header;
	__u64 handle;
	__u64 generation;
};

/* Between whom a conversation is held. 112 bytes. */
struct ec_ends {
	struct ec_header header;
	__u64 handle;
	__u64 generation;
	struct ec_tuple_value tuple;
	__u8 _padding[4];
};

/* A process that was captured ended. 48 bytes. */
struct ec_exit {
	struct ec_header header;
};

/* One secret. 200 bytes. */
struct ec_secret {
	struct ec_header header;
	__u64 handle;
	__u64 generation;
	__u8 client_random[EC_RANDOM_LENGTH];
	__u8 label[EC_LABEL_LENGTH]; /* text; empty: the number counts */
	__u8 secret[EC_SECRET_MAXIMUM];
	__u16 length;	     /* of the secret */
	__u8 label_number;   /* enum ec_label */
	__u8 _padding[5];
};

/*
 * Of an established TLS 1.3 connection of OpenSSL's: nine arrays of 64 bytes as they stand in its object (handshake
 * secret, master secret, resumption secret, client's and server's finished secrets, hash of the transcript up to the
 * server's Finished, hash up to ServerHello, client's and server's application secrets), and the exporter secret.
 * 736 bytes.
 */
struct ec_schedule {
	struct ec_header header;
	__u64 handle;
	__u64 generation;
	__u8 client_random[EC_RANDOM_LENGTH];
	__u8 secrets[EC_SCHEDULE_LENGTH];
	__u8 exporter[EC_SECRET_MAXIMUM];
};

/*
 * A command of a client's and whose it is. (pid, tid, time) names it in all that follows. Behind it, without anything
 * between: user, host, database, each empty where it is not known; and what the client sent with it, if that is short:
 * else it follows in records of its own. 96 bytes.
 */
struct ec_command {
	struct ec_header header; /* its time is that of the beginning */
	__u64 session;	   /* the server's object */
	__u64 connection;  /* the server's number of the session */
	__u64 text_length; /* of the statement, before any limit */
	__u32 statement;   /* id of a prepared statement */
	__u16 flags;	   /* enum ec_command_flag */
	__u8 command;	   /* enum_server_command, or one of the pseudo commands below */
	__u8 known;	   /* of the row: bit 0 user, 1 host or address, 2 database, 3 connection */
	__u16 user_length;
	__u16 host_length;
	__u16 database_length;
	__u16 sent_length; /* of what the client sent, all of it; 0: nothing, or it follows */
	__u8 role;	   /* enum ec_text_role: what the client sent */
	__u8 _padding[7];
};

/* Commands that no packet has. */
enum ec_pseudo_command {
	EC_COMMAND_CONNECT = 240,
	EC_COMMAND_DISCONNECT = 241,
};

/* Bytes of a command. They follow. 88 bytes. */
struct ec_command_text {
	struct ec_header header;
	__u64 session;
	__u64 started_ns;
	__u64 length; /* of the whole text */
	__u64 offset; /* where these bytes stand in it */
	__u8 role;    /* enum ec_text_role */
	__u8 _padding[7];
};

/* 112 bytes. */
struct ec_command_end {
	struct ec_header header; /* its time is that of the end */
	__u64 session;
	__u64 started_ns;
	__u64 connection;
	__u64 affected; /* all answers together */
	__u64 last_id;	/* of the last answer */
	__u64 rows;	/* sent, as the session counts them */
	__u32 statement;
	__u32 error; /* 0: none */
	__u32 results;
	__u16 flags; /* enum ec_command_flag */
	__u8 command;
	__u8 _padding;
};

/* A shell's functions and variables: addresses as its file has them. 0: it has none. Index into "shell_rows". */
struct ec_shell_row {
	__u64 reader;	    /* functions: of the shapes READ, */
	__u64 expander;	    /* EXPAND, */
	__u64 taker;	    /* TAKEN, */
	__u64 stringer;	    /* STRING */
	__u64 executor;	    /* and EXECUTE */
	__u64 line;	    /* dash: the instruction where a line was read, */
	__u64 loop;	    /* a function that reads files, 0 if what nobody types is not wanted (fish: NEXT), */
	__u64 loop_end;	    /* and what is behind it */
	__u64 status;	    /* int: of the last command */
	__u64 parsed;	    /* a pointer to what was read last; none if that was blank */
	__u64 text;	    /* a pointer to what was read last, and */
	__u64 text_end;	    /* one to its end */
	__u64 printed;	    /* a pointer to the simple command that is going to be run */
	__u64 interactive;  /* int */
	__u64 sourced;	    /* int: how deep in files that are read on the way */
	__u64 string;	    /* a pointer: not 0 if there is a text to execute, from -c */
	__u64 input;	    /* a structure: the kind of input, a pointer to its name, a file descriptor */
	__u64 file;	    /* a pointer to the name of the file that is read; 0 if it is standard input */
	__u64 source;	    /* dash: a pointer to what says what is read, and how far, */
	__u64 sourced_name; /* and one to the name of that, if the file is read on the way */
	__u64 wide_text;    /* fish: enum ec_wide_text */
	__u64 wide_status;  /* and enum ec_wide_status */
	__u64 members;	    /* busybox: a pointer to where status (a byte), string and file are: they are distances */
};

/* The beginning of zsh's struct eprog, a program as it was parsed (Src/zsh.h, zsh 5.3 to 5.9). 40 bytes. */
struct ec_zsh_eprog {
	__u32 flags;
	__u32 length;	/* of patterns, where they stand before the words, words and strings */
	__u32 patterns; /* number */
	__u32 uses;
	__u64 pattern;	/* pointers to these, eight bytes each, */
	__u64 words;	/* to the words */
	__u64 strings;	/* and to the strings */
};

/* A shell takes a command. Behind it, place_length bytes: the name of the file it is from. Then the names of the
 * directories that lead to the working directory, the innermost first, each with a NUL. 104 bytes. */
struct ec_shell_begin {
	struct ec_header header;
	__u64 session;	 /* when this shell was first seen: tells processes of one number apart */
	__u32 command;	 /* number in the session */
	__u32 login_uid; /* of the login that it descends from; all ones: of none, or not known */
	__u16 place_length;
	__u8 origin;	 /* enum ec_origin */
	__u8 directory;	 /* not 0: the names are there, and whole */
	__u8 terminal[EC_TERMINAL_LENGTH];
	__u32 limit; /* bytes of its text to keep, where that is made of what is sent; 0: it was cut already */
};

/* A piece of what a shell was given. The text follows. 72 bytes. */
struct ec_shell_text {
	struct ec_header header; /* flags: LAST of its line, FAULT, TRUNCATED */
	__u64 session;
	__u32 command;
	__u32 line;   /* number in the command */
	__u32 offset; /* of the piece in the line */
	__u8 form;    /* enum ec_form */
	__u8 encoding; /* enum ec_encoding */
	__u16 _padding;
};

/* A command ended. 80 bytes. */
struct ec_shell_end {
	struct ec_header header;
	__u64 session;
	__u64 started_ns; /* boot clock; 0: not known */
	__u32 command;
	__u32 lines; /* how many lines of text were sent of it */
	__s32 status;
	__u8 ending;	 /* enum ec_ending */
	__u8 has_status; /* not 0: status is one, or a signal */
	__u16 _padding;
};

/* What could not be delivered, counted where it happened; one row in the array "losses". */
struct ec_losses {
	__u64 ring_full_records;
	__u64 ring_full_bytes;
	__u64 fault_records; /* delivered without payload: EC_FLAG_FAULT */
	__u64 fault_bytes;
	__u64 table_full_records; /* a call that could not be remembered until it returned, a child that is not followed */
	__u64 end_records;	  /* ends of conversations and processes that found no room */
	__u64 truncated_calls;
	__u64 truncated_bytes;
};

/*
 * A process that owns sockets, by a number that stands for this very content. "options" are those of a pcapng packet
 * block, ready to be copied: a comment for people and a custom option for tools. 104 bytes.
 */
struct ec_owner {
	__u32 pid;
	__u32 uid;
	__u8 comm[EC_COMM_LENGTH];
	__u32 in_cgroup; /* not 0: under one of the cgroups in the map "cgroups" */
	__u32 length;	 /* of the options; 0: they are not written yet */
	__u8 options[EC_OWNER_OPTIONS];
};

/* What the program for packets must know of one interface, by its index in the map "interfaces" of its namespace. */
struct ec_interface {
	__u32 number; /* in the file, and in the array "interface_counts" */
	__u32 header; /* bytes of a frame before what its EtherType announces; 0: frames begin with an IP header */
	__u32 space;  /* number of the network namespace: addresses mean something only within one */
	__u32 both;   /* not 0: both ends of every frame are here (loopback) */
};

/* One row in the array "packet_settings". Whose packets are wanted stands in ec_settings. */
struct ec_packet_settings {
	__u64 wall_offset_ns; /* from CLOCK_BOOTTIME to time since 1970 */
	__u64 wakeup_level;   /* fill of the ring in bytes at which a packet wakes the reader */
	__u32 snap_length;    /* bytes kept of one packet, at least 1 */
	__u32 with_names;     /* not 0: where only some processes are wanted, questions to name servers as well */
};

/* Packets of one interface that passed the filter; "delivered" is their difference. */
struct ec_interface_counts {
	__u64 received;
	__u64 dropped; /* for which there was no room in the ring */
	__u64 cut;     /* longer than the snap length */
	__u64 unreadable; /* delivered without content: the kernel could not read it */
};

/* What stands in front of every part of a recording. */
struct ec_frame {
	__u32 length;
	__u32 kind;
};

#endif

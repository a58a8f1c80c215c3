// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* Mentions every type of wire.h once, so that the compiled object's BTF describes the wire. It is never loaded. */
#include "wire.h"

struct ec_hook wire_hook;
struct ec_settings wire_settings;
struct ec_tuple_value wire_tuple_value;
struct ec_header wire_header;
struct ec_plaintext wire_plaintext;
struct ec_served wire_served;
struct ec_end wire_end;
struct ec_ends wire_ends;
struct ec_exit wire_exit;
struct ec_chain wire_chain;
struct ec_secret_row wire_secret_row;
struct ec_parameter_row wire_parameter_row;
struct ec_operand wire_operand;
struct ec_told_row wire_told_row;
struct ec_secret wire_secret;
struct ec_schedule wire_schedule;
struct ec_walk wire_walk;
struct ec_server_row wire_server_row;
struct ec_command wire_command;
struct ec_command_text wire_command_text;
struct ec_command_end wire_command_end;
struct ec_losses wire_losses;
struct ec_owner wire_owner;
struct ec_interface wire_interface;
struct ec_packet_settings wire_packet_settings;
struct ec_interface_counts wire_interface_counts;
struct ec_frame wire_frame;
enum ec_constants wire_constants;
enum ec_kind wire_kind;
enum ec_direction wire_direction;
enum ec_flag wire_flag;
enum ec_tuple_source wire_tuple_source;
enum ec_family wire_family;
enum ec_length wire_length;
enum ec_label wire_label;
enum ec_hook_flag wire_hook_flag;
enum ec_shape wire_shape;
enum ec_dispatch wire_dispatch;
enum ec_text_role wire_text_role;
enum ec_command_flag wire_command_flag;
enum ec_pseudo_command wire_pseudo_command;

/** Plain words for what goes wrong. */

const CODES = {
  room_not_found: 'This room does not exist, or it has ended.',
  room_full: 'This room is full.',
  quota_exceeded: 'The owner of this server has used up the agreed amount. Try again later.',
  token_expired: 'Your entry ticket has expired. Join again.',
  no_welcome: 'The server let you in, but no connection came about. A firewall may be in the way.',
  no_media_path: 'No connection came about. A firewall may be in the way.',
  no_demo: 'This server has no demo room: that exists only with the development key. Use your own page and tokens.',
  gave_up: 'The connection was lost and could not be restored.',
  duplicate_identity: 'You joined from another place; this window has left.',
  participant_removed: 'You were removed from the room.',
  room_deleted: 'The room was closed.',
  room_empty: 'The room was closed.',
  room_duration_exceeded: 'The room reached its time limit.',
  server_shutdown: 'The server is being restarted.',
  connection_lost: 'The connection was lost.',
};

const DEVICE_ERRORS = {
  NotAllowedError: 'was not allowed by the browser',
  NotFoundError: 'was not found',
  NotReadableError: 'is in use by another program',
  OverconstrainedError: 'cannot do what was asked of it',
};

/** Why joining failed or a call ended. */
export function explain(error) {
  if (CODES[error.code]) return CODES[error.code];
  // What fetch() throws when nobody answers.
  if (error instanceof TypeError || error.name === 'TimeoutError') return 'The server cannot be reached. Is it running?';
  if (error.status === 401 || error.status === 403) return 'The server did not let you in.';
  if (error.status >= 500) return 'The server has a problem. Try again in a moment.';
  return `That did not work: ${error.message}.`;
}

/** Why the call ended, by the server's word. */
export function explainEnd(reason) {
  return CODES[reason] ?? 'The call has ended.';
}

/** Why a device is missing. */
export function explainDevice(device, error) {
  return `The ${device} ${DEVICE_ERRORS[error.name] ?? 'could not be opened'}.`;
}

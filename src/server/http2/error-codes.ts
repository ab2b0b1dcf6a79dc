/** Why a stream or a connection ends early (RFC 9113, section 7). */
export const errorCodes = {
  noError: 0x0,
  protocolError: 0x1,
  internalError: 0x2,
  flowControlError: 0x3,
  streamClosed: 0x5,
  frameSizeError: 0x6,
  refusedStream: 0x7,
  cancel: 0x8,
  compressionError: 0x9,
  enhanceYourCalm: 0xb,
} as const

export type ErrorCode = (typeof errorCodes)[keyof typeof errorCodes]

/** What a connection does not survive: its peer is told the code in a GOAWAY, the text is for the log. */
export class ConnectionError extends Error {
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string) {
    super(message)
    this.name = 'ConnectionError'
    this.code = code
  }
}

export function protocolError(message: string): ConnectionError {
  return new ConnectionError(errorCodes.protocolError, message)
}

/** For what is right, but too much. */
export function calmDown(message: string): ConnectionError {
  return new ConnectionError(errorCodes.enhanceYourCalm, message)
}

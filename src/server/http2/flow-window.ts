import { ConnectionError, errorCodes } from './error-codes.ts'
import { maxWindow } from './frames.ts'

/**
 * How much a peer may send (RFC 9113, section 5.2), of a connection or a stream. It is told of room in steps of half the window:
 * one by one, each request would cost an answer of its own.
 */
export class ReceiveWindow {
  readonly #size: number
  #room: number
  #given = 0

  constructor(size: number) {
    this.#size = size
    this.#room = size
  }

  /** Takes what came; false when that is more than there was room for. */
  take(bytes: number): boolean {
    this.#room -= bytes
    return this.#room >= 0
  }

  /** Gives back what was read: the bytes that the peer is to be told of, or 0. */
  give(bytes: number): number {
    this.#given += bytes
    const given = this.#given
    if (2 * given < this.#size) return 0
    this.#given = 0
    this.#room += given
    return given
  }
}

/** Adds to a window of the peer's; throws FLOW_CONTROL_ERROR when that is more than a window can be. */
export function widened(window: number, bytes: number): number {
  if (window + bytes > maxWindow) throw new ConnectionError(errorCodes.flowControlError, 'a window is too large')
  return window + bytes
}

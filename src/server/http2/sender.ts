/**
 * What leaves a connection. All that its streams have to say in a turn of the event loop leaves in one write; where there is less
 * room than they have to say, they take turns of one frame each.
 */
import type { Socket } from 'node:net'
import type { ErrorCode } from './error-codes.ts'
import { widened } from './flow-window.ts'
import { defaultWindow, flags, frameTypes, writeUint32 } from './frames.ts'
import { HeaderWriter } from './header-writer.ts'
import { Outbox } from './outbox.ts'

/** A stream that has something to say. */
export interface Speaker {
  /** The sender's own note: it waits for its turn. */
  isWaiting: boolean
  /** Sends what there is room for, with `most` frames of its body. True when more could be sent, were there room on the connection. */
  send(most: number): boolean
}

export interface SenderOwner {
  /** Told when all was written that can be for now. */
  written(): void
  /** Told when more piles up than answers ever do: the peer does not read what it asks for. */
  overflowed(): void
}

export class Sender {
  readonly outbox: Outbox
  readonly headers: HeaderWriter
  /** Bytes of answers that wait to be sent. */
  unsent = 0
  /** Frames of bodies that were sent and not counted by the connection. */
  uncounted = 0
  readonly #socket: Socket
  readonly #owner: SenderOwner
  #window = defaultWindow
  /** In the order in which it is their turn. */
  readonly #waiting: Speaker[] = []
  #isDue = false
  #isOver = false

  constructor(socket: Socket, owner: SenderOwner) {
    this.#socket = socket
    this.#owner = owner
    this.outbox = new Outbox(socket)
    this.headers = new HeaderWriter(this.outbox)
    socket.on('drain', () => this.schedule())
  }

  /** Sends what a stream has to say, as far as there is room; the rest when there is. */
  offer(speaker: Speaker): void {
    if (speaker.isWaiting || this.#isOver) return
    // Whose turn it is not sends its headers only.
    if (!this.#takesMore || speaker.send(this.#waiting.length > 0 ? 0 : framesAtOnce)) this.#wait(speaker)
    this.schedule()
  }

  /** How much of `wanted` bytes of bodies there is room for at the moment. */
  roomFor(wanted: number): number {
    return this.#takesMore ? Math.min(wanted, this.#window) : 0
  }

  /** Takes the room for bytes of a body. */
  spend(bytes: number): void {
    this.#window -= bytes
    this.unsent -= bytes
    this.uncounted += 1
  }

  /** The peer takes more bytes of bodies. */
  widen(bytes: number): void {
    this.#window = widened(this.#window, bytes)
    if (this.#waiting.length > 0) this.schedule()
  }

  settings(values: readonly (readonly [id: number, value: number])[]): void {
    const { outbox } = this
    outbox.frameHead(values.length * 6, frameTypes.settings, 0, 0)
    for (const [id, value] of values) {
      outbox.block[outbox.at] = id >> 8
      outbox.block[outbox.at + 1] = id
      outbox.at = writeUint32(outbox.block, outbox.at + 2, value)
    }
    this.schedule()
  }

  settingsTaken(): void {
    this.outbox.frameHead(0, frameTypes.settings, flags.ack, 0)
    this.schedule()
  }

  /** Eight bytes, as `bytes` has them at `from`. */
  ping(bytes: Buffer, from: number, isAnswer: boolean): void {
    this.outbox.frameHead(8, frameTypes.ping, isAnswer ? flags.ack : 0, 0)
    this.outbox.payload(bytes, from, from + 8)
    this.schedule()
  }

  /** Says that the body of a request may come. */
  goOn(id: number): void {
    this.headers.goOn(id)
    this.schedule()
  }

  windowUpdate(id: number, bytes: number): void {
    this.#number(frameTypes.windowUpdate, id, bytes)
  }

  reset(id: number, code: ErrorCode): void {
    this.#number(frameTypes.rstStream, id, code)
  }

  goAway(lastId: number, code: ErrorCode): void {
    const { outbox } = this
    outbox.frameHead(8, frameTypes.goAway, 0, 0)
    outbox.at = writeUint32(outbox.block, writeUint32(outbox.block, outbox.at, lastId), code)
    this.schedule()
  }

  /** Writes at the end of this turn what came together until then. */
  schedule(): void {
    if (this.#isOver) return
    if (this.outbox.length > limitBytes) return void this.#owner.overflowed()
    if (this.#isDue) return
    this.#isDue = true
    if (due.push(this) === 1) setImmediate(flushDue)
  }

  flush(): void {
    this.#isDue = false
    if (this.#isOver || this.#socket.destroyed) return
    for (let writes = 0; writes < writesATurn && !this.#isBlocked; writes++) {
      this.#pump()
      // What waits for anything but a write is told to come again by what it waits for.
      if (this.outbox.length === 0) return void this.#owner.written()
      this.outbox.flush()
    }
    if (!this.#isBlocked) this.schedule()
  }

  /** Writes what there is, and ends this side of the connection. */
  end(): void {
    this.#isOver = true
    this.outbox.flush()
    this.#socket.end()
  }

  /** Whether more of answers may be put together for now. */
  get #takesMore(): boolean {
    return this.outbox.length < fullBytes && !this.#isBlocked
  }

  /** Whether the system takes no more for now; 'drain' tells when it does. */
  get #isBlocked(): boolean {
    return this.#socket.writableLength >= this.#socket.writableHighWaterMark
  }

  #wait(speaker: Speaker): void {
    speaker.isWaiting = true
    this.#waiting.push(speaker)
  }

  /** Lets those that wait send a frame each, in turn. */
  #pump(): void {
    let without = 0
    while (this.#waiting.length > without && this.#takesMore) {
      const speaker = this.#waiting.shift()
      if (speaker === undefined) return
      speaker.isWaiting = false
      const before = this.outbox.length
      if (!speaker.send(1)) continue
      this.#wait(speaker)
      without = this.outbox.length === before ? without + 1 : 0
    }
  }

  /** Puts a frame whose payload is one number. */
  #number(type: number, id: number, value: number): void {
    const { outbox } = this
    outbox.frameHead(4, type, 0, id)
    outbox.at = writeUint32(outbox.block, outbox.at, value)
    this.schedule()
  }
}

/** What of answers is put together for one write before others have to wait. */
const fullBytes = 128 * 1024

/** So often is that written in one turn; then others have theirs. */
const writesATurn = 8

/** Of answers there is never so much at once: only of resets, and answers to frames. */
const limitBytes = 1024 * 1024

/** Frames of a body that leave at once while nobody else waits. */
const framesAtOnce = 8

/** Those that have something to write at the end of this turn. */
let due: Sender[] = []

function flushDue(): void {
  const flushing = due
  due = []
  for (const sender of flushing) sender.flush()
}

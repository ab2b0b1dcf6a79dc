import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Framing, splitEvents, visitData } from './event-stream.ts'

function dataOf(events: Uint8Array, framing: Framing): string[] {
  const data: string[] = []
  visitData(events, framing, (bytes, start, end) => data.push(bytes.toString('latin1', start, end)))
  return data
}

/** By the words of the standard, a line at a time. */
function naiveData(text: string): string[] {
  const found: string[] = []
  let data: string[] = []
  for (const line of text.split(/\r\n|\r|\n/)) {
    const [, field, value = ''] = /^([^:]*):? ?(.*)$/s.exec(line) ?? []
    if (line === '') {
      if (data.join('\n') !== '') found.push(data.join('\n'))
      data = []
    } else if (field === 'data') data.push(value)
  }
  return found
}

const texts = fc.oneof(
  fc.stringMatching(/^[ -~]{0,12}$/),
  fc.constantFrom('{"a":"data: "}', '', ' ', ':', '[DONE]', 'data: x', 'é'),
)
const fields = fc.oneof(
  { weight: 4, arbitrary: texts.map((text) => `data: ${text}`) },
  texts.map((text) => `data:${text}`),
  fc.constantFrom(': a comment', 'event: delta', 'id: 7', 'retry: 5', 'data'),
)
/** Mostly as backends send them. */
const lineEnds = fc.oneof({ weight: 5, arbitrary: fc.constant('\n') }, fc.constantFrom('\r\n', '\r'))
const events = fc
  .tuple(
    fc.oneof({ weight: 4, arbitrary: fields.map((field) => [field]) }, fc.array(fields, { maxLength: 3 })),
    lineEnds,
  )
  .map(([lines, end]) => [...lines, ''].map((line) => line + end).join(''))

describe('the data of whole events', () => {
  it('are those that the standard tells, wherever the events stand', () => {
    fc.assert(
      fc.property(fc.array(events, { maxLength: 6 }), (all) => {
        const bytes = Buffer.from(all.join(''), 'latin1')
        expect(dataOf(bytes, 'sse')).toEqual(naiveData(bytes.toString('latin1')))
      }),
      { numRuns: 2_000 },
    )
  })

  it('are the same of events together and of each alone', () => {
    fc.assert(
      fc.property(fc.array(events, { maxLength: 6 }), (all) => {
        const bytes = Buffer.from(all.join(''), 'latin1')
        const alone = splitEvents(bytes, 'sse').flatMap((event) => dataOf(event, 'sse'))
        expect(dataOf(bytes, 'sse')).toEqual(alone)
      }),
      { numRuns: 1_000 },
    )
  })

  it('are the lines, where each line is an event', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(texts, lineEnds), { maxLength: 6 }), (lines) => {
        const text = lines.map((line) => line.join('')).join('')
        const expected = text.split(/\r\n|\r|\n/).filter((line) => line !== '')
        expect(dataOf(Buffer.from(text, 'latin1'), 'lines')).toEqual(expected)
      }),
    )
  })
})

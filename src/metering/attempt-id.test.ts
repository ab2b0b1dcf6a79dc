import { expect, test } from 'vitest'
import { isUuid, newId } from '../ids.ts'
import { attemptIdOf, callOfAttempt, recordIdOf } from './attempt-id.ts'

const admission = newId()
const numbers = [1, 2, 3, 4]
const sent = numbers.map((number) => attemptIdOf(admission, number))

test('each attempt is sent with an id of its own, the first one with that of the admission', () => {
  expect(sent[0]).toBe(admission)
  expect(new Set(sent).size).toBe(4)
  expect(sent.every(isUuid)).toBe(true)
})

test('a call is known by the id of any of its attempts', () => {
  expect(new Set(sent.map(callOfAttempt)).size).toBe(1)
  expect(callOfAttempt(newId())).not.toBe(callOfAttempt(admission))
})

test.each(numbers)(
  'the records of %i attempts have the ids that were sent, the last one that of the admission',
  (count) => {
    const records = numbers.slice(0, count).map((number) => recordIdOf(admission, number, count))
    expect(records.toSorted()).toEqual(sent.slice(0, count).toSorted())
    expect(records.at(-1)).toBe(admission)
  },
)

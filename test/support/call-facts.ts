import { type CallFacts, noRequest } from '../../src/policy/facts.ts'

/** A call of a shop in Europe to a chat that takes confidential data; a request of which nothing is known. */
export const callFacts: CallFacts = {
  consumer: {
    id: 'c',
    projectId: '',
    name: 'shop',
    tier: 'basic',
    status: 'active',
    clearance: 'internal',
    homeRegion: 'eu',
  },
  organization: { id: 'o' },
  service: {
    id: 's',
    name: 'chat',
    version: '1.0.0',
    status: 'active',
    classification: 'confidential',
    regions: ['eu'],
    certifications: [],
    tags: [],
    labels: {},
  },
  request: noRequest,
  address: '10.1.2.3',
  timeMs: 0,
}

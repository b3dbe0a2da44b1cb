//! Capture files: pcap and pcapng, read and written as a stream of frames.

"""The demo: broker, Tiled and beamline, all real, on this machine (extra `[demo]`)."""
